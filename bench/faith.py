"""How faithful the maps are: deletion and insertion areas, ours beside captum's and pytorch-grad-cam's.

    python -m bench.faith [--pictures N]

All methods explain the same class of the same net on the same photographs and are judged by the same curves.
"""
from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import captum.attr
import cv2
import numpy as np
import pytorch_grad_cam as grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

import explainers
from bench.loaded import loaded
from bench.table import Row, at_least, line, mean
from explainers import faith
from explainers.base import Explanation, Look, steps
from models.base import Features, Target

DATA = Path(os.environ.get("SEEWHY_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
QUICK, USUAL, ALL = 4, 12, 300
STEPS = 8                    # points of a curve
SAME = 1e-5                  # of the maximum: what two programs' roundings differ by
NOISE = 0.002                # of a mean area: interpolation and ties, measured between equal maps

Map = Callable[[Look, Target], np.ndarray]
Areas = tuple[float, float]     # under the deletion and the insertion curve


def rows(quick: bool, pictures: int = 0) -> Iterator[Row]:
    """Mean areas of every method, and whether ours are at least as good as their twins elsewhere."""
    count = pictures or (QUICK if quick else USUAL)
    files = sorted((DATA / "imagenet").glob("*.jpg"))
    if not files:
        yield Row("faithfulness", "not measured", note=f"no photographs in {DATA / 'imagenet'}")
        return
    files = files[::max(1, len(files) // count)][:count]
    model = loaded("efficientnet-lite0")
    pairs = methods(model)
    yield from compared(pairs, measured(model, pairs, files))


def long_rows() -> Iterator[Row]:
    """On all photographs."""
    return rows(False, ALL)


def measured(model: Any, pairs: list[dict[str, Map]], files: list[Path]) -> dict[str, list[Areas]]:
    """Of every method the areas on each photograph."""
    areas: dict[str, list[Areas]] = {name: [] for pair in pairs for name in pair}
    for done, file in enumerate(files, 1):
        look = Look(model, np.asarray(cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)))
        target = explainers.resolve(explainers.Question(), look)
        for pair in pairs:
            judged: list[tuple[np.ndarray, Areas]] = []
            for name, run in pair.items():
                heat = run(look, target)
                # Twins mostly draw the same map: it is judged once.
                same = (found for other, found in judged if np.abs(_scaled(heat) - other).max() < SAME)
                areas[name].append(next(same, None) or _areas(look, target, heat))
                judged.append((_scaled(heat), areas[name][-1]))
        if done % 20 == 0:
            print(f"       {done} of {len(files)} photographs", file=sys.stderr, flush=True)
    return areas


def compared(pairs: list[dict[str, Map]], areas: dict[str, list[Areas]]) -> Iterator[Row]:
    """Every method's means, and ours against each of its twins."""
    for pair in pairs:
        means = {name: np.mean(areas[name], 0) for name in pair}
        for name, (deletion, insertion) in means.items():
            yield Row(name, f"{deletion:.3f} {insertion:.3f}", note="mean deletion, insertion")
        own, *others = pair
        for name in others:
            gains = np.array(areas[name]) - np.array(areas[own])       # of deletion, less is better
            better = min(mean(gains[:, 0].tolist()), mean((-gains[:, 1]).tolist()))
            yield at_least(f"ours minus {name}, the worse of both areas", better, -NOISE,
                           f"{len(areas[name])} photographs")


def _scaled(heat: np.ndarray) -> np.ndarray:
    return heat / max(float(np.abs(heat).max()), 1e-30)


def _areas(look: Look, target: Target, heat: np.ndarray) -> Areas:
    e = Explanation(heat.astype(np.float32))
    *_, last = faith.curve_steps(look, e, target, STEPS, ("deletion_black", "insertion_blur"))
    return float(last.numbers["area deletion_black"]), float(last.numbers["area insertion_blur"])


class Whole(nn.Module):
    """The classifier as one module with its last map as a layer, which the others' hooks look for."""

    def __init__(self, model: Any):
        super().__init__()
        self.net, self.last, self.model = model.net, nn.Identity(), model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.logits_of(Features((self.last(self.model.encode(x).maps[0]),)), Target(0))


def methods(model: Any) -> list[dict[str, Map]]:
    """Ours first, then its twins from captum and pytorch-grad-cam; then ours that have none."""
    whole = Whole(model)

    def ours(name: str, **params: object) -> Map:
        def run(look: Look, target: Target) -> np.ndarray:
            *_, last = steps(look, name, target, dict(params))
            return last.heat
        return run

    def cam(kind: type) -> Map:
        def run(look: Look, target: Target) -> np.ndarray:
            with kind(model=whole, target_layers=[whole.last]) as other:
                return other(look.x.clone().requires_grad_(), [ClassifierOutputTarget(target.index)])[0]
        return run

    def by_captum(attribute: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor], signed: bool) -> Map:
        def run(look: Look, target: Target) -> np.ndarray:
            torch.manual_seed(0)               # the noise of ours, or chance would decide between the two
            found = attribute(look.forward(target), look.x.clone().requires_grad_()).detach()[0]
            return (found.sum(0) if signed else found.abs().amax(0)).cpu().numpy()
        return run

    def layer_cam(look: Look, target: Target) -> np.ndarray:
        found = captum.attr.LayerGradCam(whole, whole.last).attribute(
            look.x.clone().requires_grad_(), target=target.index, relu_attributions=True)
        large = captum.attr.LayerAttribution.interpolate(found, look.canvas.size, "bilinear")
        return large[0, 0].detach().cpu().numpy()

    warnings.filterwarnings("ignore")
    a = captum.attr
    return [
        {"Grad-CAM": ours("grad_cam"), "Grad-CAM by pytorch-grad-cam": cam(grad_cam.GradCAM),
         "Grad-CAM by captum": layer_cam},
        {"Grad-CAM++": ours("grad_cam_plus_plus"),
         "Grad-CAM++ by pytorch-grad-cam": cam(grad_cam.GradCAMPlusPlus)},
        {"LayerCAM": ours("layer_cam"), "LayerCAM by pytorch-grad-cam": cam(grad_cam.LayerCAM)},
        {"EigenCAM": ours("eigen_cam"), "EigenCAM by pytorch-grad-cam": cam(grad_cam.EigenCAM)},
        {"saliency": ours("saliency"), "saliency by captum": by_captum(
            lambda f, x: a.Saliency(f).attribute(x, abs=False), False)},
        {"SmoothGrad, 5": ours("smooth_grad", samples=5), "SmoothGrad, 5, by captum": by_captum(
            lambda f, x: a.NoiseTunnel(a.Saliency(f)).attribute(x, nt_samples=5, stdevs=0.15, abs=False),
            False)},
        {"integrated gradients, 10": ours("integrated_gradients", steps=10),
         "integrated gradients, 10, by captum": by_captum(
            lambda f, x: a.IntegratedGradients(f).attribute(x, n_steps=10, internal_batch_size=5), True)},
        {"ParchGrad": ours("parchgrad")}, {"ParchGrad of SmoothGrad": ours("parchgrad", of="smoothgrad")},
        {"random order (chance)": lambda look, target: np.random.default_rng(0).random(look.canvas.size)},
    ]


def main() -> None:
    """The table on its own, on as many photographs as there is time for."""
    parser = argparse.ArgumentParser("python -m bench.faith", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=ALL, help=f"how many of the {ALL} photographs")
    for row in rows(False, parser.parse_args().pictures):
        print(line(row), flush=True)


if __name__ == "__main__":
    main()
