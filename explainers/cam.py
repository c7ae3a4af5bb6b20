"""Class activation maps, read off the split: no hooks, no pass through the backbone."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from explainers.base import Explanation, Look, method
from models.base import Target


def on_canvas(level: Tensor, size: tuple[int, int]) -> np.ndarray:
    """One 1x1xhxw level as a canvas map."""
    return F.interpolate(level, size, mode="bilinear", align_corners=False)[0, 0].cpu().numpy()


@method("Grad-CAM", group="maps", live=True,
        shows="Which regions of the last feature map raise the score.",
        cannot="Not what within a region, nor anything finer than the map's cells.")
def grad_cam(look: Look, target: Target) -> Explanation:
    """Selvaraju et al. 2017: channels weighted by their mean gradient, summed, negatives dropped."""
    gradients, score = look.feature_gradients(target)
    levels = (torch.relu((g.mean((2, 3), keepdim=True) * f).sum(1, keepdim=True))
              for f, g in zip(look.features, gradients, strict=True))
    heat = sum(on_canvas(level, look.canvas.size) for level in levels)
    return Explanation(np.asarray(heat, np.float32), numbers={"score": float(score)})
