"""Class activation maps, read off the split: no hooks, no pass through the backbone."""
from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import torch
from torch import Tensor

from explainers.base import Explanation, Look, method
from models.base import Target

COARSE = "anything finer than the map's cells"


def on_canvas(level: Tensor, size: tuple[int, int]) -> np.ndarray:
    """One 1x1xhxw level as a canvas map, interpolated bilinearly between the middles of its cells."""
    return cv2.resize(level[0, 0].cpu().numpy(), size[::-1], interpolation=cv2.INTER_LINEAR)


def _summed(levels: Iterable[Tensor], look: Look) -> np.ndarray:
    """All levels of a pyramid as one canvas map; what is below zero on a level is dropped there."""
    heat = sum(on_canvas(torch.relu(level), look.canvas.size) for level in levels)
    return np.asarray(heat, np.float32)


def _pooled(feature: Tensor, gradient: Tensor) -> Tensor:
    return (gradient.mean((2, 3), keepdim=True) * feature).sum(1, keepdim=True)


@method("Grad-CAM", group="maps", live=True, needs=("gradient", "maps"),
        shows="Which regions of the last feature map raise the score.",
        cannot="Not what within a region, nor anything finer than the map's cells.")
def grad_cam(look: Look, target: Target) -> Explanation:
    """Selvaraju et al. 2017: channels weighted by their mean gradient, summed, negatives dropped."""
    gradients, score = look.feature_gradients(target)
    levels = map(_pooled, look.features.maps, gradients)
    return Explanation(_summed(levels, look), numbers={"score": float(score)})


@method("Counterfactual Grad-CAM", group="maps", live=True, needs=("gradient", "maps"),
        shows="Which regions lower the score: what speaks against it.",
        cannot=f"Not what would have to be there instead, nor {COARSE}.")
def counterfactual_grad_cam(look: Look, target: Target) -> Explanation:
    """Selvaraju et al. 2017, section 5.1: Grad-CAM of the negated gradient."""
    gradients, score = look.feature_gradients(target)
    levels = (_pooled(f, -g) for f, g in zip(look.features.maps, gradients, strict=True))
    return Explanation(_summed(levels, look), numbers={"score": float(score)})


@method("Grad-CAM++", group="maps", live=True, needs=("gradient", "maps"),
        shows="Like Grad-CAM, fairer to several objects of one class and to parts of one.",
        cannot=f"Not what lowers the score, nor {COARSE}.")
def grad_cam_plus_plus(look: Look, target: Target) -> Explanation:
    """Chattopadhay et al. 2018: only raising gradients, each weighted by how alone it stands in its map."""
    gradients, score = look.feature_gradients(target)
    levels = []
    for f, g in zip(look.features.maps, gradients, strict=True):
        alone = g ** 2 / (2 * g ** 2 + f.sum((2, 3), keepdim=True) * g ** 3 + 1e-6)
        weights = (torch.where(g != 0, alone, 0) * torch.relu(g)).sum((2, 3), keepdim=True)
        levels.append((weights * f).sum(1, keepdim=True))
    return Explanation(_summed(levels, look), numbers={"score": float(score)})


@method("LayerCAM", group="maps", live=True, needs=("gradient", "maps"),
        shows="Which cells raise the score, each judged by its own gradient.",
        cannot=f"Not what lowers the score, nor {COARSE}.")
def layer_cam(look: Look, target: Target) -> Explanation:
    """Jiang et al. 2021: activation times its own gradient where that is above zero."""
    gradients, score = look.feature_gradients(target)
    levels = ((torch.relu(g) * f).sum(1, keepdim=True)
              for f, g in zip(look.features.maps, gradients, strict=True))
    return Explanation(_summed(levels, look), numbers={"score": float(score)})


@method("ODAM", group="maps", live=True, tasks=("detect",), needs=("gradient", "maps"),
        shows="Which cells made this one box, apart from every other box.",
        cannot=f"Not what lies outside the cells its own candidate reads, nor {COARSE}.")
def odam(look: Look, target: Target) -> Explanation:
    """Zhao et al. 2022: activation times gradient, element by element, un-pooled."""
    gradients, score = look.feature_gradients(target)
    levels = ((g * f).sum(1, keepdim=True) for f, g in zip(look.features.maps, gradients, strict=True))
    return Explanation(_summed(levels, look), numbers={"score": float(score)})


@method("EigenCAM", group="maps", live=True, needs=("maps",),
        shows="Where the last feature map is busiest, whatever was said.",
        cannot="It is not class-specific: every class, box or word of a picture gets the same map.")
def eigen_cam(look: Look, target: Target) -> Explanation:
    """Muhammad & Yeasin 2020: the first principal component of the features, without any gradient."""
    return Explanation(_summed(map(_principal, look.features.maps), look))


def _principal(feature: Tensor) -> Tensor:
    """1xCxhxw to 1x1xhxw: projection on the main direction, busy cells positive."""
    rows = feature[0].flatten(1).T
    rows = rows - rows.mean(0)
    if rows.shape[0] <= rows.shape[1]:
        values, vectors = torch.linalg.eigh((rows @ rows.T).double())
        projection = vectors[:, -1] * values[-1].clamp(min=0).sqrt()
    else:
        projection = rows.double() @ torch.linalg.eigh((rows.T @ rows).double()).eigenvectors[:, -1]
    busy = (feature[0] ** 2).sum(0).flatten().double()
    projection = torch.where(((busy - busy.mean()) * projection).sum() < 0, -projection, projection)
    return projection.float().view(1, 1, *feature.shape[-2:])
