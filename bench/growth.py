"""How cost grows with pictures' size, clients, boxes, words, steps, masks, kept pictures: linear at most."""
from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Event
from typing import Any, cast

import cv2
import numpy as np
import torch

from bench.browser import photograph
from bench.loaded import loaded
from bench.table import Row, at_most
from explainers import Look, Question, parse, resolve, steps
from explainers.perturbation import over_masks
from explainers.pixels import probability
from explainers.words import word_maps
from models import boxes
from models.base import letterbox
from serving import frames
from serving.engine import Explain, See, Wish
from serving.local import LocalEngine
from serving.settings import Settings
from serving.work import Work

LIMIT = 1.1
CLASSIFY = Wish("classify", "efficientnet-lite0", method="grad_cam")
Prepared = Callable[[int], Callable[[], Any]]
"""How much of something there is, to the work that is timed with so much of it."""


@dataclass(frozen=True)
class Fit:
    """seconds = c * size ** exponent, by least squares on logarithms; `last` is between the two largest."""

    exponent: float
    error: float                     # its standard error
    last: float


def fit(sizes: Sequence[float], seconds: Sequence[float]) -> Fit:
    """How cost grows with size; three sizes at least."""
    x, y = np.log(np.asarray(sizes, float)), np.log(np.asarray(seconds, float))
    if len(x) < 3 or len(set(sizes)) < len(x):
        raise ValueError(f"a line needs three different sizes at least, got {list(sizes)}")
    off = x - x.mean()
    slope = float(off @ y / (off @ off))
    left = y - y.mean() - slope * off
    error = float(np.sqrt(left @ left / (len(x) - 2) / (off @ off)))
    return Fit(slope, error, float((y[-1] - y[-2]) / (x[-1] - x[-2])))


def timed(prepared: Prepared, sizes: Sequence[int], repeats: int,
          clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """The least seconds of each size, the sizes taking turns: other work on the machine only adds."""
    works = {size: prepared(size) for size in sizes}
    for work in works.values():
        work()
    best = dict.fromkeys(sizes, float("inf"))
    for _ in range(repeats):
        for size, work in works.items():
            start = clock()
            work()
            best[size] = min(best[size], max(clock() - start, 1e-9))
    return list(best.values())


def grows(what: str, prepared: Prepared, sizes: Sequence[int], repeats: int) -> Row:
    """One table as a row: the exponent is the figure, the table the note."""
    seconds = timed(prepared, sizes, repeats)
    found = fit(sizes, seconds)
    cells = ", ".join(f"{size}: {1000 * s:.4g}" for size, s in zip(sizes, seconds, strict=True))
    return at_most(f"cost over {what}, exponent", found.exponent, LIMIT,
                   f"+- {found.error:.2f}; {found.last:.2f} between the two largest; ms for {cells}")


def rows(quick: bool = False) -> Iterator[Row]:
    """Seven tables."""
    repeats = 2 if quick else 4
    model, cat = loaded("efficientnet-lite0"), photograph("cat")
    look = Look(model, cat)
    target = resolve(Question(), look)

    def last(method: str, **params: int) -> None:
        *_, _ = steps(look, method, target, params)

    def masked(count: int) -> None:
        *_, _ = over_masks(look, probability(look, target), count, 8, "black", 0)

    yield grows("pixels of a picture", lambda n: lambda: Look(model, frames.decode(jpeg(cat, n))),
                [64_000, 128_000, 256_000, 512_000, 1_024_000, 2_048_000], 3 * repeats)
    with engine() as served:
        yield grows("clients, a frame for each", lambda n: lambda: served(n), [1, 2, 4, 8, 16, 32], repeats)
    yield grows("boxes of a frame", kept_boxes, [10, 20, 40, 80, 160, 300], 5 * repeats)
    yield grows("words of a caption, with all maps", captioned(), [3, 6, 9, 12, 15, 18], 3 * repeats)
    yield grows("steps of integrated gradients", lambda n: lambda: last("integrated_gradients", steps=n),
                [5, 10, 20, 40], max(1, repeats // 2))
    yield grows("masks of RISE", lambda n: lambda: masked(n), [20, 40, 80, 160], max(1, repeats // 2))
    yield grows("kept pictures, each explained again", explained_again, [1, 2, 4, 8, 16, 32], repeats)


def jpeg(picture: np.ndarray, pixels: int) -> bytes:
    """The picture as a JPEG of so many pixels, four to three."""
    height = round((pixels * 3 / 4) ** 0.5)
    small = cv2.resize(picture, (round(height * 4 / 3), height), interpolation=cv2.INTER_LINEAR)
    return cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


@contextmanager
def engine() -> Iterator[Callable[[int], None]]:
    """A real engine: `served(n)` returns when n clients have each had a frame seen and explained."""
    running, data = LocalEngine(Settings()), jpeg(photograph("cat"), 300_000)

    def served(count: int) -> None:
        over = [Event() for _ in range(count)]
        for i, event in enumerate(over):
            running.submit(f"client {i}", ("frame", i), See(data, CLASSIFY), _until("explanation", event))
        for event in over:
            if not event.wait(120):
                raise TimeoutError("a client's frame was not answered")

    for i in range(32):
        running.join(f"client {i}")
    try:
        yield served
    finally:
        running.close()


def _until(last: str, over: Event) -> Callable[[str, dict[str, Any]], None]:
    def hear(event: str, fields: dict[str, Any]) -> None:
        if event in (last, "error", "dropped"):
            over.set()

    return hear


def kept_boxes(count: int) -> Callable[[], Any]:
    """From a detector's candidates to what is sent, `count` of them being sure and apart from each other."""
    canvas = letterbox(photograph("bus"), 416)
    draw = torch.Generator().manual_seed(0)
    corners = torch.rand(2535, 4, generator=draw) * 8
    places = torch.arange(2535)
    corners[:, 0] += places % 32 * 13
    corners[:, 1] += places // 32 % 32 * 13
    corners[:, 2:] = corners[:, :2] + 12
    sure = torch.zeros(2535, 80)
    sure[torch.randperm(1024, generator=draw)[:count], 0] = 0.9
    names = {i: str(i) for i in range(80)}
    return lambda: json.dumps(boxes.keep(corners, sure, canvas, names, 0.3, 0.6).describe())


def captioned() -> Prepared:
    """A sentence of n words that somebody typed, read by the captioner, with a map for every word."""
    model: Any = loaded("efficientnetv2-lstm")
    look = Look(model, photograph("cat"))
    whole = resolve(Question(), look)
    said = cast(tuple[int, ...], whole.words)

    def of(count: int) -> Callable[[], Any]:
        words = (said[:-1] * count)[:count - 1] + said[-1:]
        return lambda: word_maps(look, replace(whole, words=words))

    return of


def explained_again(count: int) -> Callable[[], Any]:
    """Questions about each of `count` pictures that were kept before."""
    work = Work(Settings())
    pictures = [jpeg(np.roll(photograph("cat"), 5 * i, 1), 100_000) for i in range(count)]
    for picture in pictures:
        list(work.run(See(picture, CLASSIFY, keep=True)))
    turns = itertools.count()

    def ask() -> None:
        wish = replace(CLASSIFY, target=parse(f"class:{next(turns)}", "classify"))    # never asked before
        for picture in pictures:
            list(work.run(Explain(picture, wish)))

    return ask
