"""Against what somebody would pick instead: Gradio, Ultralytics, pytorch-grad-cam, captum, a plain loop."""
from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import models
from bench import webcam
from bench.browser import photograph
from bench.loaded import loaded
from bench.table import Ratio, Row, at_least, at_most, paired, took_at_most
from explainers import Look, Question, resolve, steps
from explainers.perturbation import over_masks
from explainers.pixels import probability
from models import compiled, yolo
from models.base import Model, Target
from models.classifier import Classifier

MASKS, TOGETHER = 1000, 50           # of the loop, and how many pictures it puts through the net together
PART = 100                           # masks between two looks at the clock
STEPS = 50


def rows(quick: bool = False) -> Iterator[Row]:
    """The five of them."""
    warnings.filterwarnings("ignore")
    model, frame = loaded("efficientnet-lite0"), photograph("cat")
    assert isinstance(model, Classifier)
    yield from against_ultralytics(photograph("zidane"))
    yield against_grad_cam(model, frame)
    yield from against_captum(model, frame)
    yield against_loop(model, frame, PART * 3 if quick else MASKS)
    yield against_gradio(1 if quick else webcam.TURNS)


def explained(model: Model, frame: np.ndarray, method: str) -> np.ndarray:
    """Prediction and map as the live channel makes them."""
    look = Look(model, frame)
    *_, last = steps(look, method, resolve(Question(), look), {})
    return last.heat


def against_gradio(turns: int) -> Row:
    """Frames per second from camera to page, windows of both in pairs."""
    what = "frames per second, camera to page / Gradio's with the same function"
    try:
        ours, theirs = webcam.rates(turns)
    except webcam.Missing as problem:
        return Row(what, "not measured", ">= 1.5", note=str(problem))
    return at_least(what, Ratio([a / b for a, b in zip(ours, theirs, strict=True)]), 1.5,
                    f"median {np.median(ours):.1f} over {np.median(theirs):.1f}, headless, a fake camera")


def against_ultralytics(frame: np.ndarray) -> Iterator[Row]:
    """A camera's frame to boxes by us, and by Ultralytics' own predict with the same random net."""
    camera, square = (cv2.resize(frame, (640, side), interpolation=cv2.INTER_AREA) for side in (480, 640))
    what = "frame to boxes / Ultralytics' predict"
    ways = ours_and_theirs("yolo26n")
    yield took_at_most(f"YOLO26n, {what}", *ways(camera), 0.8, "640x480, equally many pixels for both")
    yield Row(f"YOLO26n, {what}, of a square", paired(*ways(square)))
    yield Row(f"YOLOv8n, {what}", paired(*ours_and_theirs("yolov8n")(camera)),
              note="640x480; a third of its work is in its head")


def ours_and_theirs(name: str) -> Callable[[np.ndarray], tuple[Callable[[], Any], Callable[[], Any]]]:
    """A picture to what looks at it with us, and with their predict: the same net on as many threads."""
    torch.manual_seed(0)
    theirs = yolo.ultralytics("ultralytics").YOLO(f"{name}.yaml", task="detect", verbose=False)
    ours = yolo.from_net(models.catalog()[name], copy.deepcopy(theirs.model))
    compiled.compile_model(ours)
    threads = torch.get_num_threads()

    def predict(bgr: np.ndarray) -> None:
        theirs.predict(bgr, imgsz=640, device="cpu", verbose=False)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)     # its first call leaves one to the whole process, ours too

    def both(rgb: np.ndarray) -> tuple[Callable[[], Any], Callable[[], Any]]:
        bgr = np.ascontiguousarray(rgb[..., ::-1])
        return lambda: Look(ours, rgb), lambda: predict(bgr)

    predict(np.zeros((64, 64, 3), np.uint8))
    return both


def against_grad_cam(model: Classifier, frame: np.ndarray) -> Row:
    """A frame named and mapped by us, over the same by the plain net and pytorch-grad-cam."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    net: Any = copy.deepcopy(model.net).requires_grad_(True)       # with its hooks ours would see in torch
    cam, normalised = GradCAM(model=net, target_layers=[net._bn1]), normaliser(model)

    def theirs() -> np.ndarray:
        x = normalised(model.prepare(frame).x)
        with torch.no_grad():
            best = int(net(x).argmax())
        return cam(input_tensor=x, targets=[ClassifierOutputTarget(best)])

    try:
        return took_at_most("predict + Grad-CAM / pytorch-grad-cam's",
                            lambda: explained(model, frame, "grad_cam"), theirs, 0.2,
                            "the same net; theirs predicts, then runs forward and backward once more")
    finally:
        cam.activations_and_grads.release()


def normaliser(model: Classifier) -> Callable[[Tensor], Tensor]:
    """[0,1] to what the plain net expects."""
    shift, spread = model._shift, model._spread
    return lambda x: (x - shift) / spread


def against_captum(model: Model, frame: np.ndarray) -> Iterator[Row]:
    """Integrated gradients with preview and completeness, over captum's own call; and the values."""
    import captum.attr

    look = Look(model, frame)
    target = resolve(Question(), look)
    theirs = captum.attr.IntegratedGradients(look.forward(target))
    black = torch.zeros_like(look.x)
    maps: dict[str, np.ndarray] = {}

    def ours() -> None:
        *_, last = steps(look, "integrated_gradients", target, {"steps": STEPS})
        maps["ours"] = last.heat

    def captums() -> None:
        maps["theirs"] = theirs.attribute(look.x, black, n_steps=STEPS).sum(1)[0].detach().cpu().numpy()

    yield took_at_most(f"integrated gradients, {STEPS} steps / captum's own call", ours, captums, 0.8,
                       "captum puts all steps through the net in one batch unless it is told otherwise")
    yield at_most("integrated gradients: largest difference from captum's values",
                  float(np.abs(maps["ours"] - maps["theirs"]).max()), 1e-5,
                  f"of {np.abs(maps['theirs']).max():.2g} at most")


def against_loop(model: Classifier, frame: np.ndarray, masks: int) -> Row:
    """RISE, not stopping early, over the paper's loop with the plain net; both go on side by side."""
    look = Look(model, frame)
    target = resolve(Question(), look)
    ours = over_masks(look, probability(look, target), masks, 8, "black", 0)
    seconds = (parts(ours, lambda e: e.numbers["masks"]),
               parts(loop(model, look.x, target, masks), lambda done: done))
    taken = list(zip(*seconds, strict=True))[1:]         # the first part also warms up
    return at_most(f"RISE, {masks:,} masks / a batched torch loop", Ratio([a / b for a, b in taken]), 0.6,
                   f"not stopping early; {TOGETHER} pictures at once in the loop")


def parts(running: Iterator[Any], done: Callable[[Any], Any]) -> Iterator[float]:
    """Seconds of each next hundred masks; whoever draws from two of these alternates between them."""
    due, start = PART, time.perf_counter()
    for step in running:
        if done(step) >= due:
            yield time.perf_counter() - start
            due, start = due + PART, time.perf_counter()


def loop(model: Classifier, x: Tensor, target: Target, masks: int) -> Iterator[int]:
    """Petsiuk et al.'s saliency as it is written down most often: masks, one batch after the other, a sum."""
    net, normalised = model.net, normaliser(model)
    size, draw, total = x.shape[-1], np.random.default_rng(0), torch.zeros(x.shape[-2:])
    cell = -(-size // 8)
    for done in range(0, masks, TOGETHER):
        coarse = torch.from_numpy(draw.integers(0, 2, (TOGETHER, 1, 9, 9)).astype(np.float32))
        large = F.interpolate(coarse, (9 * cell, 9 * cell), mode="bilinear", align_corners=False)
        batch = torch.empty(TOGETHER, 1, size, size)
        for i in range(TOGETHER):
            top, left = draw.integers(0, cell, 2)
            batch[i] = large[i, :, top:top + size, left:left + size]
        with torch.no_grad():
            p = net(normalised(batch * x)).softmax(1)[:, target.index]
        total += (p[:, None, None] * batch[:, 0]).sum(0)
        yield done + TOGETHER
