"""Explanations from hiding parts of the picture and looking again: no gradient is needed."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from explainers.base import Explanation, Look, method
from explainers.pixels import at_once, hidden, probability, shown
from explainers.running import running
from models.base import BadInput, Box, Features, Prediction, Target

SOME = 100                           # masks before which a map is mostly chance
PARTS = 8                            # of the masks: a coarse grid has few cells, so two would say little


def looked_at(look: Look, weigh: Callable[[Features], Tensor], pictures: Tensor) -> Tensor:
    """The weight of every picture of a batch, (N,), without gradients."""
    with torch.no_grad():
        return torch.cat([weigh(look.model.encode(part)).flatten()
                          for part in pictures.split(at_once(pictures))])


@method("Occlusion", group="perturbation", signed=True,
        shows="How much the score falls when a window over the picture is hidden.",
        cannot="Not what several places do together; a hidden window can look like something else.",
        window=(0.15, 0.03, 0.5), stride=(0.07, 0.02, 0.5), fill=("mean", "black", "blur"))
def occlusion(look: Look, target: Target, window: float, stride: float, fill: str) -> Iterator[Explanation]:
    """Zeiler & Fergus 2014. Sizes are shares of the canvas; the windows come in a scattered order."""
    height, width = look.canvas.size
    size = max(1, round(window * max(height, width)))
    step = min(size, max(1, round(stride * max(height, width))))
    x, instead = look.x.detach(), hidden(look, fill)
    places = [(top, left) for top in _starts(height, size, step) for left in _starts(width, size, step)]
    rows, columns = look.canvas.inside
    places = [(top, left) for top, left in places if top < rows.stop and top + size > rows.start
              and left < columns.stop and left + size > columns.start]
    order = np.random.default_rng(0).permutation(len(places))
    with torch.no_grad():
        score = look.model.score(look.features, target)[0]
    fall, seen = np.zeros((height, width)), np.zeros((height, width))
    done = 0
    for first in range(0, len(places), at_once(x)):
        batch = [places[i] for i in order[first:first + at_once(x)]]
        covered = x.repeat(len(batch), 1, 1, 1)
        for picture, (top, left) in zip(covered, batch, strict=True):
            at = (..., slice(top, top + size), slice(left, left + size))
            picture[at] = instead[0][at]
        falls = score - looked_at(look, lambda f: look.model.score(f, target), covered)
        for value, (top, left) in zip(falls.tolist(), batch, strict=True):
            fall[top:top + size, left:left + size] += value
            seen[top:top + size, left:left + size] += 1
        done += len(batch)
        yield Explanation((fall / np.maximum(seen, 1)).astype(np.float32), progress=done / len(places),
                          numbers={"score": float(score), "windows": len(places)},
                          note="" if done == len(places) else f"{done} of {len(places)} windows.")


def _starts(length: int, size: int, step: int) -> range:
    """Where windows begin, the last one cut off by the edge if it must be (as captum slides them)."""
    return range(0, step * (-(-max(0, length - size) // step)) + 1, step)


@method("RISE", group="perturbation", signed=True,
        shows="How probable it is where a place is seen, minus where it is hidden, over many random masks.",
        cannot="Not fine detail; with few masks the map is mostly chance.",
        masks=(1000, 20, 4000), grid=(8, 4, 24), fill=("black", "blur", "mean"), seed=(0, 0, 999))
def rise(look: Look, target: Target, masks: int, grid: int, fill: str, seed: int) -> Iterator[Explanation]:
    """Petsiuk et al. 2018 with p 0.5, as a difference of means: the same order, without the constant."""
    yield from over_masks(look, probability(look, target), masks, grid, fill, seed, settles=True)


@method("D-RISE", group="perturbation", signed=True, tasks=("detect",),
        shows="How well this very box is found where a place is seen, minus where it is hidden.",
        cannot="Not fine detail; with few masks the map is mostly chance.",
        masks=(1000, 20, 4000), grid=(16, 4, 24), fill=("black", "blur", "mean"), seed=(0, 0, 999))
def d_rise(look: Look, target: Target, masks: int, grid: int, fill: str, seed: int) -> Iterator[Explanation]:
    """Petsiuk et al. 2021: a mask counts by its best box, overlap x class similarity x confidence."""
    wanted, classes = box_of(look, target), _classes(look, target)

    def weigh(features: Features) -> Tensor:
        found = [look.model.predict(one, look.canvas, **look.settings) for one in _each_picture(features)]
        return torch.tensor([_best(p, wanted, classes) for p in found])

    yield from over_masks(look, weigh, masks, grid, fill, seed, settles=True)


def _each_picture(features: Features) -> list[Features]:
    """The features of a batch, one picture at a time."""
    def one(i: int) -> Features:
        return features.each(lambda t: t[i:i + 1])
    return [one(i) for i in range(len(features.tensors[0]))]


def box_of(look: Look, target: Target) -> Box:
    """The box that a target of a detector is about, as it was seen in this picture."""
    for box in (*look.prediction.boxes, *look.prediction.candidates):
        if box.anchor == target.anchor:
            return box
    raise BadInput("the box asked about is none of this picture's; say box:0, candidate:0 or near:X,Y")


def _classes(look: Look, target: Target) -> dict[int, float]:
    """What is to be found in the box: its own classes, or the one that was asked about."""
    box = box_of(look, target)
    if target.index in (None, box.index) and target.versus is None and box.choices:
        return {c.index: c.probability for c in box.choices}
    return {box.index if target.index is None else target.index: 1.0}


def _best(found: Prediction, wanted: Box, classes: dict[int, float]) -> float:
    """The best box of a prediction: overlap x cosine of the classes x confidence."""
    return max((overlap(b.box, wanted.box) * _cosine(
        {c.index: c.probability for c in b.choices} or {b.index: 1.0}, classes) * b.confidence
        for b in (*found.boxes, *found.candidates)), default=0.0)


def _cosine(a: dict[int, float], b: dict[int, float]) -> float:
    lengths = [sum(v * v for v in c.values()) ** 0.5 for c in (a, b)]
    return sum(v * b.get(k, 0.0) for k, v in a.items()) / max(lengths[0] * lengths[1], 1e-12)


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return both / max(areas[0] + areas[1] - both, 1e-9)


def random_masks(count: int, grid: int, size: tuple[int, int], draw: np.random.Generator) -> Tensor:
    """count x1xhxw in [0,1]: cells on or off by a coin, enlarged smoothly, shifted by part of a cell."""
    height, width = size
    cell = -(-height // grid), -(-width // grid)
    coarse = torch.from_numpy(draw.integers(0, 2, (count, 1, grid + 1, grid + 1)).astype(np.float32))
    sides = [(grid + 1) * c for c in cell]
    large = F.interpolate(coarse, sides, mode="bilinear", align_corners=False).clamp(0, 1)
    shifts = zip(draw.integers(0, cell[0], count), draw.integers(0, cell[1], count), strict=True)
    return torch.stack([m[:, top:top + height, left:left + width]
                        for m, (top, left) in zip(large, shifts, strict=True)])


def over_masks(look: Look, weigh: Callable[[Features], Tensor], masks: int, grid: int, fill: str, seed: int,
               settles: bool = False) -> Iterator[Explanation]:
    """E[weight | seen] - E[weight | hidden] for every pixel, better with every batch of masks.

    It is the weights' regression on each pixel's mask: its covariance with them over its own variance. With
    `settles` it ends before all masks when the rest would change nothing (running.py).
    """
    x, instead, inside = look.x.detach(), hidden(look, fill), shown(look).bool()
    draw = np.random.default_rng(seed)
    parts, done, turn, near = [_Slopes(look.canvas.size) for _ in range(PARTS)], 0, 0, None
    while done < masks:
        count = min(2 * at_once(x), masks - done)
        drawn = random_masks(count, grid, look.canvas.size, draw)
        seen = torch.where(inside, drawn.to(x.device), 1.0)
        weights = looked_at(look, weigh, seen * x + (1 - seen) * instead).double().cpu().numpy()
        parts[turn % PARTS].add(weights, drawn[:, 0].double().numpy())
        done, turn = done + count, turn + 1
        if turn % PARTS == 0 and done >= SOME:
            near = running(parts, _slope, look.canvas, done, masks)
        enough = done == masks or (settles and near is not None and near.settled)
        numbers: dict[str, float | str] = {"masks": done, "mean over masks": _mean(parts)}
        yield Explanation(_slope(parts), progress=1.0 if enough else done / masks,
                          numbers=numbers | ({"running error": near.error} if near else {}),
                          note=_so_far(done, masks, enough))
        if enough:
            return


def _so_far(done: int, masks: int, enough: bool) -> str:
    if done == masks:
        return ""
    if enough:
        return f"{done} of {masks} masks: the rest would change nothing."
    return f"{done} of {masks} masks" + (": mostly chance so far." if done < SOME else ".")


class _Slopes:
    """Sums from which the regression of weights on every pixel's mask follows."""

    def __init__(self, size: tuple[int, int]):
        self.sums = np.zeros((3, *size))               # weight x mask, mask, mask squared
        self.total, self.count = 0.0, 0

    def add(self, weights: np.ndarray, planes: np.ndarray) -> None:
        self.sums += np.stack([np.tensordot(weights, planes, 1), planes.sum(0), np.square(planes).sum(0)])
        self.total, self.count = self.total + float(weights.sum()), self.count + len(weights)


def _mean(parts: list[_Slopes]) -> float:
    return sum(p.total for p in parts) / sum(p.count for p in parts)


def _slope(parts: list[_Slopes]) -> np.ndarray:
    """The regression on the masks of all these parts."""
    both, single, square = np.sum([p.sums for p in parts], 0) / sum(p.count for p in parts)
    variance = np.maximum(square - single ** 2, 0.05)  # a sixth once masks are many
    return ((both - single * _mean(parts)) / variance).astype(np.float32)
