"""What every detector does alike: from all its candidates to the boxes that are shown."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor
from torchvision.ops import batched_nms

from models.base import SIDES, BadInput, Box, Canvas, Choice, Prediction

MOST = 300                  # boxes of one frame
UNREPORTED = 10             # candidates below the threshold that can be asked about
FLOOR = 0.01                # below this nothing is worth a question


def keep(corners: Tensor, confidences: Tensor, canvas: Canvas, labels: dict[int, str], threshold: float,
         nms: float | None, branch: str = "") -> Prediction:
    """(A,4) canvas boxes by their (A,K) confidences, suppressed per class; nms None: the head needs none."""
    best, index = confidences.max(1)
    likely = (best > min(FLOOR, threshold)).nonzero()[:, 0]
    if len(likely) > 10 * MOST:
        likely = likely[best[likely].topk(10 * MOST).indices]
    order = (best[likely].argsort(descending=True, stable=True) if nms is None else
             batched_nms(corners[likely], best[likely], index[likely], nms))
    kept = likely[order][:MOST]
    shown = int((best[kept] >= threshold).sum())
    kept = kept[:shown + UNREPORTED]
    height, width = canvas.frame_size
    frame = canvas.to_frame(corners[kept].cpu().double().numpy())
    frame = np.clip(frame, 0, [width, height, width, height])
    ranked = confidences[kept].topk(min(5, confidences.shape[1]))
    found = tuple(
        Box(classes[0], labels[classes[0]], shares[0], (box[0], box[1], box[2], box[3]), anchor,
            tuple(Choice(i, labels[i], p) for i, p in zip(classes, shares, strict=True)), branch)
        for box, anchor, classes, shares in zip(frame.tolist(), kept.tolist(), ranked.indices.tolist(),
                                                ranked.values.tolist(), strict=True))
    return Prediction("detect", boxes=found[:shown], candidates=found[shown:])


def checked_class(index: int | None, labels: dict[int, str]) -> int:
    """A class that the detector has, or a sentence that says which it has."""
    if index is None:
        raise BadInput("this box needs a class to be explained; say box:0/class:NAME, a side or objectness")
    if index not in labels:
        raise BadInput(f"class must be an index from {min(labels)} to {max(labels)}, got {index}")
    return index


def side(corners: tuple[Tensor, ...], part: str) -> Tensor:
    """One side's coordinate in canvas pixels: what is explained when a person asks why the box ends there."""
    if part not in SIDES:
        raise BadInput(f"part must be class, objectness, {', '.join(SIDES)}, got {part!r}")
    return corners[SIDES.index(part)]


def confident(part: str) -> None:
    """Refuse what has a place and no probability."""
    if part in SIDES:
        raise BadInput(f"a box's {part} side has no confidence; ask about its class")


def shifted(seen: Prediction, by: int) -> Prediction:
    """The same boxes with their candidates' numbers moved on, where a second head counts after the first."""
    return replace(seen, boxes=tuple(replace(b, anchor=b.anchor + by) for b in seen.boxes),
                   candidates=tuple(replace(b, anchor=b.anchor + by) for b in seen.candidates))
