"""What several methods do to pixels: what hides them, which of them are the picture, scores in batches."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor

from explainers.base import Look
from explainers.target import SIDES
from models.base import Target

FILLS = ("black", "blur", "mean")
BLUR = 10 / 224                      # the deviation as a share of the side: objects go, the light stays


def at_once(x: Tensor) -> int:
    """How many pictures go through a net together: few on a processor, whose cache is small.

    Five of 224x224; of a detector's 416x416 one, since five together cost a quarter more than five alone.
    """
    return 32 if x.is_cuda else max(1, min(5, round(5 * 224 * 224 / (x.shape[-2] * x.shape[-1]))))


def shown(look: Look) -> Tensor:
    """1x1xhxw: one where the canvas shows the picture, zero on padding."""
    mask = torch.zeros(1, 1, *look.canvas.size, device=look.x.device)
    mask[(..., *look.canvas.inside)] = 1
    return mask


def hidden(look: Look, fill: str) -> Tensor:
    """The canvas with nothing to see on it: black, blurred or its mean colour; padding stays as it is."""
    rows, columns = look.canvas.inside
    out = look.x.detach().clone()
    picture = out[..., rows, columns]
    if fill == "black":
        picture.zero_()
    elif fill == "mean":
        picture.copy_(picture.mean((2, 3), keepdim=True).expand_as(picture))
    else:
        pixels = picture[0].permute(1, 2, 0).cpu().numpy()
        soft = cv2.GaussianBlur(pixels, (0, 0), BLUR * max(picture.shape[-2:]),
                                borderType=cv2.BORDER_REPLICATE)
        picture.copy_(torch.from_numpy(soft).permute(2, 0, 1)[None])
    return out


def probability(look: Look, target: Target) -> Callable[[tuple[Tensor, ...]], Tensor]:
    """Features to (N,) in [0,1]: what the score means to a person.

    A class's share; the detector's confidence; a word's probability, for a caption its geometric mean over
    the words. With a rival: the share against it. For a box side: 1 where it stays, 0 a whole canvas away.
    """
    model, task = look.model, look.model.info.task
    with torch.no_grad():
        now = float(model.score(look.features, target)[0])
    if target.part in SIDES:
        return lambda f: (1 - (model.score(f, target) - now).abs() / max(look.canvas.size)).clamp(0, 1)
    if target.versus is not None:
        return lambda f: model.score(f, target).sigmoid()
    if task == "classify":
        return lambda f: model.logits_of(f, target).softmax(1)[:, target.index]
    if task == "caption":
        words = len(target.words or ()) if target.position is None else 1
        return lambda f: (model.score(f, target) / max(1, words)).exp()
    if target.part == "objectness" or _speaks_in_logs(look, target):
        return lambda f: model.score(f, target).exp()
    return lambda f: model.score(f, target).sigmoid()


def _speaks_in_logs(look: Look, target: Target) -> bool:
    """Whether a detector's score is the log of the confidence that is shown, and not its logit."""
    for box in (*look.prediction.boxes, *look.prediction.candidates):
        if box.anchor == target.anchor:
            with torch.no_grad():
                score = float(look.model.score(look.features, replace(target, index=box.index))[0])
            return score <= 0 and abs(np.exp(score) - box.confidence) < 1e-3
    return False


def pixel_gradient(forward: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """d forward / d pixels for each picture of a batch, and the scores."""
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        scores = forward(leaf)
        gradient = torch.autograd.grad(scores.sum(), leaf)[0]
    return gradient, scores.detach()
