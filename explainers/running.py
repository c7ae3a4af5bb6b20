"""How far a mean over random samples still is from the mean over all of them, as its parts say."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TypeVar

import numpy as np

from models.base import Canvas

Part = TypeVar("Part")
# The rank correlation with the full run at which the rest changes nothing. A map may be a hundredth off; what
# is expected can be missed, so it must be a third of that: of
# twenty photographs with two settings then none was a hundredth away.
SETTLED = 0.997
CELLS = 4096                         # pixels that are looked at: ranks need no more


@dataclass(frozen=True)
class Running:
    """What parts of the samples say about the map of them together."""

    error: float                     # the standard error of the map, as a share of its own spread
    agreement: float                 # the rank correlation that is expected with the map of all samples

    @property
    def settled(self) -> bool:
        return self.agreement >= SETTLED


def running(parts: Sequence[Part], mapped: Callable[[list[Part]], np.ndarray], canvas: Canvas, done: int,
            most: int) -> Running:
    """From 2, 4 or 8 equally large, independent parts of `done` samples out of `most`; `mapped` joins some.

    All are cut in halves in as many ways as are independent of each other. Half the difference of two halves
    has the variance E of their mean. If S is the variance of the map without noise, halves correlate by
    S / (S + 2E), and the map of all parts with that of all samples by sqrt((S + E done / most) / (S + E)).
    Between ranks this also holds for a map with few strong places on a wide ground of nothing, whose order is
    all noise: there a variance per pixel would promise too much.
    """
    alike, errors = [], []
    for cut in range(1, len(parts)):
        sides: tuple[list[Part], list[Part]] = ([], [])
        for i, part in enumerate(parts):
            sides[(i & cut).bit_count() % 2].append(part)
        one, two = (_sampled(mapped(side), canvas) for side in sides)
        spread = float((one + two).std())
        if not (spread > 0 and one.std() > 0 and two.std() > 0):
            return Running(1.0, 0.0)
        errors.append(float(np.square(one - two).mean()) / spread ** 2)
        alike.append(rank_correlation(one, two))
    error, halves = sqrt(np.mean(errors)), float(np.mean(alike))
    if halves <= 0:
        return Running(error, 0.0)
    noise = (1 / min(halves, 1.0) - 1) / 2               # E / S
    return Running(error, sqrt((1 + noise * done / most) / (1 + noise)))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, of arrays of one shape that are not constant; equal values have the mean of their ranks."""
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which.ravel()]


def _sampled(heat: np.ndarray, canvas: Canvas) -> np.ndarray:
    """Every n-th pixel of the picture: its noise is a pixel's, which a mean over cells would hide."""
    shown = heat[canvas.inside]
    every = max(1, round(sqrt(shown.size / CELLS)))
    return shown[::every, ::every].astype(np.float64).ravel()
