"""RISE and SmoothGrad that stop early: how far they are from their full runs, and what that saves."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from bench import table
from bench.faith import DATA
from bench.loaded import loaded
from bench.table import Row, at_least
from explainers import Look, Question, resolve, steps
from explainers.gradient import per_pixel, smoothed
from explainers.perturbation import over_masks
from explainers.pixels import probability
from explainers.running import rank_correlation
from models.base import Target

PICTURES = 20
LIMIT = 0.99
MASKS, SAMPLES = 1000, 24            # what the two take where nobody says otherwise
Full = Callable[[Look, Target], np.ndarray]


def rows(quick: bool = False) -> Iterator[Row]:
    """On as many of the twenty photographs as there is time for."""
    return _rows(table.left() / 3)


def long_rows() -> Iterator[Row]:
    """On all twenty."""
    return _rows(float("inf"))


def _rows(seconds: float) -> Iterator[Row]:
    files = sorted((DATA / "imagenet").glob("*.jpg"))
    files = files[::max(1, len(files) // PICTURES)][:PICTURES]
    if not files:
        yield Row("early stops", "not measured", note=f"no photographs in {DATA / 'imagenet'}")
        return
    yield compared("RISE, coarse grid", "rise", {"masks": MASKS, "grid": 4}, _masked(4), files, seconds)
    yield compared("RISE", "rise", {"masks": MASKS}, _masked(8), files, seconds)
    yield compared("SmoothGrad", "smooth_grad", {"samples": SAMPLES}, _smooth, files, seconds)


def compared(what: str, name: str, params: dict[str, int], full: Full, files: list[Path],
             seconds: float) -> Row:
    """The worst rank correlation between a map that might stop early and the full run."""
    model, start = loaded("efficientnet-lite0"), time.perf_counter()
    counted = next(iter(params))
    alike, taken = [], []
    for file in files:
        look = Look(model, np.asarray(cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)))
        target = resolve(Question(), look)
        *_, stopped = steps(look, name, target, dict(params))
        taken.append(float(stopped.numbers[counted]) / params[counted])
        # Without an early stop it is the full run.
        alike.append(1.0 if taken[-1] == 1 else rank_correlation(stopped.heat, full(look, target)))
        if (time.perf_counter() - start) * (1 + 1 / len(alike)) > seconds:     # another would be too long
            break
    claim = f"{what}, {params[counted]} at most: rank correlation with all of them"
    return at_least(claim, min(alike), LIMIT,
                    f"the worst of {len(alike)} photographs; {sum(t < 1 for t in taken)} stopped early; "
                    f"{np.mean(taken):.0%} of all were taken")


def _masked(grid: int) -> Full:
    def full(look: Look, target: Target) -> np.ndarray:
        *_, last = over_masks(look, probability(look, target), MASKS, grid, "black", 0)
        return last.heat

    return full


def _smooth(look: Look, target: Target) -> np.ndarray:
    *_, (mean, _) = smoothed(look.forward(target), look.x, SAMPLES, 0.15, 0)
    return per_pixel(mean)
