"""What an explanation costs over the bare work it stands on."""
from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import captum.attr
import numpy as np
import torch

import explainers
import models
from bench.table import Row, at_most, paired
from explainers.base import Look, steps
from explainers.pixels import pixel_gradient
from models.base import Model, Target
from serving import presets
from serving.frames import decode_upload


def rows(quick: bool) -> Iterator[Row]:
    """The classifier's methods: one-pass maps, saliency, integrated gradients against captum's own call."""
    repeats = 31 if quick else 201             # a map is a millisecond: few runs show only the noise
    path = presets.path("cat")
    assert path is not None
    frame, model = decode_upload(path.read_bytes()), models.load("efficientnet-lite0")
    look = Look(model, frame)
    target = explainers.resolve(explainers.Question(), look)
    for name in ("grad_cam", "counterfactual_grad_cam", "grad_cam_plus_plus", "layer_cam", "eigen_cam"):
        yield at_most(f"predict + {name} over predict", _with_map(model, frame, name, target, repeats), 1.05)
    yield at_most("saliency over a bare forward and input gradient", paired(
        lambda: finish(look, "saliency", target), lambda: pixel_gradient(look.forward(target), look.x),
        repeats), 1.05)
    theirs = captum.attr.IntegratedGradients(look.forward(target))
    black = torch.zeros_like(look.x)
    few = 3 if quick else 7
    for note, limit in (("all steps in one batch, as captum does it", {}),
                        ("captum told to take 5 at a time", {"internal_batch_size": 5})):
        ratio = paired(lambda: finish(look, "integrated_gradients", target, steps=25),
                       partial(theirs.attribute, look.x, black, n_steps=25, **limit), few)
        what = "integrated gradients, 25 steps, over captum's own call"
        yield Row(what, ratio, note=note) if limit else at_most(what, ratio, 0.9, note)
    own = finish(look, "integrated_gradients", target, steps=25).heat
    off = abs(own - theirs.attribute(look.x, black, n_steps=25).sum(1)[0].detach().cpu().numpy()).max()
    yield at_most("integrated gradients: largest difference from captum's values", float(off), 1e-4)


def finish(look: Look, name: str, target: Target, **params: object) -> explainers.Explanation:
    """The last explanation of a method."""
    *_, last = steps(look, name, target, dict(params))
    return last


def _with_map(model: Model, frame: np.ndarray, name: str, target: Target, repeats: int) -> float:
    return paired(lambda: finish(Look(model, frame), name, target), lambda: Look(model, frame), repeats)
