"""Exemplar-based filling: randomised nearest patches, coarse to fine, the patches over a pixel vote."""
from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

import cv2
import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch.nn import functional as F

_blas = ThreadpoolController()
_alone, _limit = Lock(), []                      # type: ignore[var-annotated]
DEPTH = 5                         # a patch is compared by its cosines of this order and below
COARSEST = 24                     # the pyramid stops when the short side would fall below this
WORK = 350_000                    # pixels of picture that the finest searched level may have
STEPS = ((0, 1), (0, -1), (1, 0), (-1, 0))


def complete(frame: np.ndarray, mask: np.ndarray, patch: int = 7, seed: int = 0,
             most: int = 10) -> np.ndarray | None:
    """HxWx3 uint8 with the masked pixels filled, or None when no whole patch is left to copy from.

    `most` bounds the rounds of searching and voting at each level.
    """
    work = pieces(frame, mask, patch, seed, most)
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def pieces(frame: np.ndarray, mask: np.ndarray, patch: int = 7, seed: int = 0,
           most: int = 10) -> Generator[None, None, np.ndarray | None]:
    """The same in pieces of some hundredths of a second, after each of which it can be stopped."""
    work = _complete(frame, mask, patch, seed, most)
    while True:
        with _one_thread():
            try:
                next(work)
            except StopIteration as end:
                return end.value
        yield


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small products only lose by being shared out. The limit is the process's: who leaves last lifts it."""
    with _alone:
        _limit.append(_limit[0] if _limit else _blas.limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _alone:
            limit = _limit.pop()
            if not _limit:
                limit.restore_original_limits()


def _complete(frame: np.ndarray, mask: np.ndarray, patch: int, seed: int,
              most: int) -> Generator[None, None, Any]:
    rng = np.random.default_rng(seed)
    rows, columns = _around(mask, patch)
    picture, hole = frame[rows, columns].astype(np.float32), mask[rows, columns]
    levels = _pyramid(picture, hole, patch)
    if not levels:
        return None
    current, field = levels[0][0], None
    for depth, (image, gap) in enumerate(levels):
        guess = _enlarged(current, image, gap) if depth else _start(image, gap)
        if field is not None:
            field = _enlarged_field(field, levels[depth - 1][1].shape, image.shape[:2])
        large = image.shape[0] * image.shape[1]
        rounds = 10 if depth == 0 else 1 if large > WORK else max(2, min(6, round(350_000 / large)))
        current, field = yield from _converge(guess, gap, field, patch, min(rounds, most), rng)
    out = frame.copy()
    out[rows, columns] = np.where(hole[..., None], np.rint(current).clip(0, 255).astype(np.uint8),
                                  frame[rows, columns])
    return out


def _around(mask: np.ndarray, patch: int) -> tuple[slice, slice]:
    """The part of the picture worth searching: the hole and a generous margin."""
    high, wide = np.flatnonzero(mask.any(1)).tolist(), np.flatnonzero(mask.any(0)).tolist()
    margin = max(96, 8 * patch, int(0.75 * max(high[-1] - high[0], wide[-1] - wide[0])))
    return (slice(max(0, high[0] - margin), high[-1] + margin + 1),
            slice(max(0, wide[0] - margin), wide[-1] + margin + 1))


def _pyramid(picture: np.ndarray, hole: np.ndarray, patch: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Coarse to fine, each half the next; known colours never mix with those of the hole."""
    levels = [(picture, hole)]
    while min(levels[-1][1].shape) >= 2 * COARSEST:
        image, gap = levels[-1]
        size = (gap.shape[1] + 1) // 2, (gap.shape[0] + 1) // 2
        known = (~gap).astype(np.float32)
        weight = cv2.resize(known, size, interpolation=cv2.INTER_AREA)
        colour = cv2.resize(image * known[..., None], size, interpolation=cv2.INTER_AREA)
        levels.append((colour / np.maximum(weight, 1e-6)[..., None], weight < 0.5))
        if cv2.distanceTransform(levels[-1][1].astype(np.uint8), cv2.DIST_L2, 3).max() < patch / 2:
            break
    levels = [(image, gap) for image, gap in levels if gap.any() and _sources(gap, patch).any()]
    return levels[::-1]


def _sources(gap: np.ndarray, patch: int) -> np.ndarray:
    """Where a whole patch of known pixels is centred."""
    usable = cv2.erode((~gap).astype(np.uint8), np.ones((patch, patch), np.uint8),
                       borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return usable.astype(bool)


def _start(image: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """A smooth first guess: the mean of the known neighbours, ever wider."""
    picture = np.rint(image).clip(0, 255).astype(np.uint8)
    filled = cv2.inpaint(picture, gap.astype(np.uint8), 5, cv2.INPAINT_NS)
    return np.where(gap[..., None], filled.astype(np.float32), image)


def _enlarged(small: np.ndarray, image: np.ndarray, gap: np.ndarray) -> np.ndarray:
    grown = cv2.resize(small, gap.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(gap[..., None], grown, image)


def _enlarged_field(field: np.ndarray, before: tuple[int, ...], size: tuple[int, ...]) -> np.ndarray:
    """Twice the offsets on twice the pixels: field is HxWx2, where each patch is copied from."""
    here = np.stack(np.meshgrid(np.arange(before[0]), np.arange(before[1]), indexing="ij"), -1)
    shift = (field - here).repeat(2, 0).repeat(2, 1)[: size[0], : size[1]] * 2
    there = np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij"), -1)
    return there + shift


def _converge(guess: np.ndarray, gap: np.ndarray, field: np.ndarray | None, patch: int, rounds: int,
              rng: np.random.Generator) -> Generator[None, None, tuple[np.ndarray, np.ndarray]]:
    """Search and vote in turns; the picture of the last vote and the field that made it."""
    height, width = gap.shape
    reach = patch // 2
    targets = np.argwhere(cv2.dilate(gap.astype(np.uint8), np.ones((patch, patch), np.uint8)).astype(bool))
    allowed = _sources(gap, patch)
    places = np.argwhere(allowed)
    basis = _basis(patch)
    known = _describe(guess, basis)
    certainty = _certainty(gap)
    if field is None:
        field = np.zeros((height, width, 2), np.int64)
        field[targets[:, 0], targets[:, 1]] = places[rng.integers(len(places), size=len(targets))]
    best = field[targets[:, 0], targets[:, 1]]
    outside = ~_inside(best, allowed)
    best[outside] = places[rng.integers(len(places), size=int(outside.sum()))]
    order = np.full((height, width), -1, np.int64)
    order[targets[:, 0], targets[:, 1]] = np.arange(len(targets))
    picture = guess
    wanted = known[targets[:, 0], targets[:, 1]]
    for turn in range(rounds):
        if turn:
            wanted = _describe_at(picture, targets, basis)
        best, cost = yield from _search(best, wanted, known, targets, order, allowed, rng,
                                        sweeps=3 if turn == 0 else 2)
        picture = _vote(guess, gap, best, cost, targets, order, certainty, reach)
    field = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1)
    field[targets[:, 0], targets[:, 1]] = best
    return picture, field


@cache
def _basis(patch: int) -> torch.Tensor:
    """Filters a patch is compared by: slow cosines, as the principal components of photographs are.

    Fifteen of brightness and three of each of two colour differences, each of length one.
    """
    at = (np.arange(patch) + 0.5) * np.pi / patch
    waves = np.stack([np.cos(k * at) * np.sqrt((2 if k else 1) / patch) for k in range(min(DEPTH, patch))])
    colours = (((1, 1, 1), DEPTH), ((1, 0, -1), 2), ((-1, 2, -1), 2))
    filters = [np.multiply.outer(np.array(colour) / np.linalg.norm(colour), np.outer(waves[i], waves[j]))
               for colour, depth in colours for i in range(min(depth, patch))
               for j in range(min(depth, patch) - i)]
    return torch.from_numpy(np.stack(filters).astype(np.float32))


def _describe(picture: np.ndarray, basis: torch.Tensor) -> np.ndarray:
    """Every patch by its cosines, HxWxD; the border goes on as it ends."""
    reach = basis.shape[-1] // 2
    planes = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]
    with torch.no_grad():
        described = F.conv2d(F.pad(planes, (reach,) * 4, mode="replicate"), basis)[0]
    return np.ascontiguousarray(described.permute(1, 2, 0).numpy())


def _describe_at(picture: np.ndarray, points: np.ndarray, basis: torch.Tensor) -> np.ndarray:
    """The same for a few patches only, NxD."""
    patch = basis.shape[-1]
    edged = np.pad(picture, ((patch // 2, patch // 2), (patch // 2, patch // 2), (0, 0)), mode="edge")
    rows = np.lib.stride_tricks.sliding_window_view(edged.reshape(len(edged), -1), patch * 3, 1)[:, ::3]
    filters = basis.permute(0, 2, 3, 1).reshape(len(basis), patch, patch * 3).numpy()
    total = np.zeros((len(points), len(basis)), np.float32)
    for dy in range(patch):
        total += rows[points[:, 0] + dy, points[:, 1]] @ filters[:, dy].T
    return total


def _certainty(gap: np.ndarray) -> np.ndarray:
    """How much a patch's word counts: 1 on known pixels, less the deeper it lies in the hole."""
    return 1.3 ** -cv2.distanceTransform(gap.astype(np.uint8), cv2.DIST_L2, 3)


def _inside(points: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    y, x = points[:, 0], points[:, 1]
    fits = (y >= 0) & (x >= 0) & (y < allowed.shape[0]) & (x < allowed.shape[1])
    fits[fits] = allowed[y[fits], x[fits]]
    return fits


def _search(best: np.ndarray, wanted: np.ndarray, known: np.ndarray, targets: np.ndarray, order: np.ndarray,
            allowed: np.ndarray, rng: np.random.Generator,
            sweeps: int) -> Generator[None, None, tuple[np.ndarray, np.ndarray]]:
    """Neighbours' offsets at jumps 4, 2, 1 (Rong & Tan's jump flooding), and guesses ever closer."""
    height, width = allowed.shape
    table = known.reshape(-1, known.shape[2])
    cost = np.square(table[best[:, 0] * width + best[:, 1]] - wanted).sum(1)

    def consider(points: np.ndarray, which: np.ndarray) -> None:
        fits = _inside(points, allowed)
        points, which = points[fits], which[fits]
        apart = table.take(points[:, 0] * width + points[:, 1], 0)
        apart -= wanted if len(which) == len(wanted) else wanted.take(which, 0)
        new = np.einsum("nd,nd->n", apart, apart)
        better = new < cost[which]
        best[which[better]], cost[which[better]] = points[better], new[better]

    for sweep in range(sweeps):
        for jump in (4, 2, 1) if sweep == 0 else (1,):
            for dy, dx in STEPS:
                ny, nx = targets[:, 0] + dy * jump, targets[:, 1] + dx * jump
                there = (ny >= 0) & (nx >= 0) & (ny < height) & (nx < width)
                which = np.flatnonzero(there)
                neighbour = order[ny[which], nx[which]]
                which, neighbour = which[neighbour >= 0], neighbour[neighbour >= 0]
                consider(best[neighbour] - (dy * jump, dx * jump), which)
                yield
        window = max(height, width) // 2
        everyone = np.arange(len(targets))
        while window >= 1:
            consider(best + rng.integers(-window, window + 1, size=best.shape), everyone)
            window //= 3
            yield
    return best, cost


def _vote(guess: np.ndarray, gap: np.ndarray, best: np.ndarray, cost: np.ndarray, targets: np.ndarray,
          order: np.ndarray, certainty: np.ndarray, reach: int) -> np.ndarray:
    """Each pixel of the hole: the mean of what the patches over it would copy there, weighed by fit."""
    height, width = gap.shape
    pixels = np.argwhere(gap)
    scale = max(float(np.percentile(cost, 75)), 1e-3)
    weight = certainty[targets[:, 0], targets[:, 1]] * np.exp(-cost / (2 * scale))
    flat = guess.reshape(-1, 3)
    source = best[:, 0] * width + best[:, 1]
    total = np.zeros((len(pixels), 4), np.float32)
    padded = np.pad(order, reach, constant_values=-1)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            patch = padded[pixels[:, 0] - dy + reach, pixels[:, 1] - dx + reach]
            says = weight.take(patch) * (patch >= 0)
            total[:, :3] += flat.take(source.take(patch) + (dy * width + dx), 0, mode="clip") * says[:, None]
            total[:, 3] += says
    out = guess.copy()
    out[gap] = total[:, :3] / np.maximum(total[:, 3:], 1e-12)
    return out
