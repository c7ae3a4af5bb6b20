"""What living costs: a map for every frame, and the way from the browser to the model and back."""
from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import models
from bench import browser
from bench.browser import photograph
from bench.table import Row, at_most, paired
from explainers import Look, Question, resolve, steps
from models.base import Model, Target
from models.classifier import Classifier


def rows(quick: bool = False) -> Iterator[Row]:
    """The four promises of the live page."""
    repeats = 24 if quick else 200
    model, frame = models.load("efficientnet-lite0"), photograph("cat")
    yield at_most("predict + Grad-CAM / predict", map_over_predict(model, frame, repeats), 1.05)
    yield at_most("saliency / bare forward and input gradient",
                  saliency_over_bare(model, frame, repeats), 1.05)
    yield at_most("ours / pytorch-grad-cam, prediction and CAM", ours_over_theirs(model, frame, repeats), 0.3,
                  "the same net; theirs predicts, then runs forward and backward once more")
    yield round_trip_over_model(frame, repeats)


def seen(model: Model, frame: np.ndarray) -> Look:
    return Look(model, frame)


def explained(model: Model, frame: np.ndarray, method: str) -> np.ndarray:
    """Prediction and map as the live channel makes them."""
    look = Look(model, frame)
    *_, last = steps(look, method, resolve(Question(), look), {})
    return last.heat


def map_over_predict(model: Model, frame: np.ndarray, repeats: int) -> float:
    return paired(lambda: explained(model, frame, "grad_cam"), lambda: seen(model, frame), repeats)


def saliency_over_bare(model: Model, frame: np.ndarray, repeats: int) -> float:
    """Both from the same look: what the method adds to the gradient that it cannot do without."""
    look = Look(model, frame)
    target = Target(index=look.prediction.classes[0].index)

    def bare() -> None:
        x = look.x.clone().requires_grad_()
        torch.autograd.grad(model.score(model.encode(x), target).sum(), x)

    return paired(lambda: [*steps(look, "saliency", target, {})], bare, repeats)


def ours_over_theirs(model: Model, frame: np.ndarray, repeats: int) -> float:
    """A frame named and mapped by us, over the same by the plain net and pytorch-grad-cam."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    assert isinstance(model, Classifier)
    net: Any = model.net.requires_grad_(True)
    cam = GradCAM(model=net, target_layers=[net._bn1])
    shift, spread = model._shift, model._spread

    def theirs() -> np.ndarray:
        x = (model.prepare(frame).x - shift) / spread
        with torch.no_grad():
            best = int(net(x).argmax())
        return cam(input_tensor=x, targets=[ClassifierOutputTarget(best)])

    try:
        return paired(lambda: explained(model, frame, "grad_cam"), theirs, repeats)
    finally:
        cam.activations_and_grads.release()
        net.requires_grad_(False)


def round_trip_over_model(frame: np.ndarray, repeats: int) -> Row:
    """From the page's `emit` to its `result`, over the milliseconds that the model itself took."""
    trips = browser.frame_trips(frame, "classify", repeats)
    whole, own = ([t for t, _ in trips], [browser.of_model(ms) for _, ms in trips])
    middle = {part: statistics.median(ms[part] for _, ms in trips) for part in ("decode", "wait", "encode")}
    return at_most("browser-side round trip / model time",
                   statistics.median(t / m for t, m in zip(whole, own, strict=True)), 1.1,
                   f"{statistics.median(whole):.1f} ms over {statistics.median(own):.1f} ms; of it "
                   + ", ".join(f"{part} {ms:.1f}" for part, ms in middle.items()))
