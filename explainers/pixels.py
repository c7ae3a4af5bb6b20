"""What several methods do to pixels: what hides them, which of them are the picture, scores in batches."""
from __future__ import annotations

from collections.abc import Callable

import cv2
import torch
from torch import Tensor

from explainers.base import Look
from models.base import SIDES, Features, Target

BLUR = 10 / 224                      # the deviation as a share of the side: objects go, the light stays


def at_once(x: Tensor) -> int:
    """How many pictures go through a net together: few on a processor, whose cache is small.

    Five of 224x224; of a detector's 416x416 one. On two cores, compiled or not, neither more nor fewer save
    time, and twice as many hold twice the memory.
    """
    return 32 if x.is_cuda else max(1, min(5, round(5 * 224 * 224 / (x.shape[-2] * x.shape[-1]))))


def shown(look: Look) -> Tensor:
    """1x1xhxw: one where the canvas shows the picture, zero on padding."""
    mask = torch.zeros(1, 1, *look.canvas.size, device=look.x.device)
    mask[(..., *look.canvas.inside)] = 1
    return mask


def hidden(look: Look, fill: str) -> Tensor:
    """The canvas with nothing to see on it: black, blur, its mean colour or noise; padding stays."""
    rows, columns = look.canvas.inside
    out = look.x.detach().clone()
    picture = out[..., rows, columns]
    if fill == "black":
        picture.zero_()
    elif fill == "mean":
        picture.copy_(picture.mean((2, 3), keepdim=True).expand_as(picture))
    elif fill == "noise":
        picture.copy_(torch.rand(picture.shape, generator=torch.Generator().manual_seed(0)))
    else:
        pixels = picture[0].permute(1, 2, 0).cpu().numpy()
        soft = cv2.GaussianBlur(pixels, (0, 0), BLUR * max(picture.shape[-2:]),
                                borderType=cv2.BORDER_REPLICATE)
        picture.copy_(torch.from_numpy(soft).permute(2, 0, 1)[None])
    return out


def probability(look: Look, target: Target) -> Callable[[Features], Tensor]:
    """Features to (N,) in [0,1]: what the score means to a person.

    For a box's side, which has no probability: 1 where it stays, 0 a whole canvas away.
    """
    model = look.model
    if target.part not in SIDES:
        return lambda f: model.probability(f, target)
    with torch.no_grad():
        now = float(model.score(look.features, target)[0])
    return lambda f: (1 - (model.score(f, target) - now).abs() / max(look.canvas.size)).clamp(0, 1)


def pixel_gradient(forward: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """d forward / d pixels for each picture of a batch, and the scores."""
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        scores = forward(leaf)
        gradient = torch.autograd.grad(scores.sum(), leaf)[0]
    return gradient, scores.detach()
