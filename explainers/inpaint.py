"""Ways to fill a hole in a picture: FILLS by name, and fill() that leaves every other pixel as it was.

However large the hole, a fill takes about as long as these bounds allow: what is more is done smaller.
"""
from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from explainers import patchmatch
from models.base import BadInput, Parameter, check_frame, checked

PREVIEW_SIDE = 192          # the long side, in pixels, at which a hole is filled while it is being drawn
GROWN = 10_000_000          # pixels of a hole times radius squared, where it is grown inwards: half a second
COPIED = 300_000            # pixels of a hole that is filled with patches: two seconds, in pieces


@dataclass(frozen=True)
class Fill:
    """One way to fill, with what a person should know of it and may turn."""

    name: str
    title: str
    shows: str
    parameters: tuple[Parameter, ...]
    lengths: tuple[str, ...]                    # parameters in pixels that shrink with a preview
    hurry: dict[str, Any]                       # what a preview passes besides, to be quicker
    ratio: Callable[..., float]                 # (pixels of the hole, **params) -> at what size it is done
    run: Callable[..., Any]                     # (frame, mask as bool, **params) -> frame, or in pieces

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "title": self.title, "shows": self.shows,
                "parameters": [p.describe() for p in self.parameters]}


FILLS: dict[str, Fill] = {}


def _register(title: str, shows: str, lengths: tuple[str, ...] = (), hurry: dict[str, Any] | None = None,
              ratio: Callable[..., float] = lambda pixels, **params: 1.0,
              **parameters: Any) -> Callable[[Any], Any]:
    def register(run: Callable[..., Any]) -> Callable[..., Any]:
        name = run.__name__
        declared = tuple(Parameter.declare(p, spec) for p, spec in parameters.items())
        FILLS[name] = Fill(name, title, shows, declared, lengths, hurry or {}, ratio, run)
        return run

    return register


def _grown(pixels: int, radius: int) -> float:
    """Both the hole and the radius shrink with the picture: its fourth power is what it saves."""
    return min(1.0, (GROWN / (pixels * radius ** 2)) ** 0.25)


@_register("PatchMatch", "Copies fitting patches from the rest of the picture; seamless on texture.",
           hurry={"most": 2}, ratio=lambda pixels, **params: min(1.0, (COPIED / pixels) ** 0.5),
           patch=(7, 3, 13), seed=(0, 0, 99))
def patch_match(frame: np.ndarray, mask: np.ndarray, patch: int, seed: int,
                most: int = 10) -> Iterator[np.ndarray | None]:
    """Barnes et al. 2009 with the multi-scale voting of Wexler et al. 2007; Telea when no patch is whole."""
    filled = yield from patchmatch.pieces(frame, mask, patch | 1, seed, most)
    yield telea(frame, mask, 5) if filled is None else filled


@_register("Telea", "Grows the colours at the rim inwards; good for thin holes.", ("radius",), ratio=_grown,
           radius=(5, 1, 30))
def telea(frame: np.ndarray, mask: np.ndarray, radius: int) -> np.ndarray:
    """Telea 2004, by OpenCV."""
    return cv2.inpaint(frame, mask.astype(np.uint8), radius, cv2.INPAINT_TELEA)


@_register("Navier-Stokes", "Carries the edges at the rim on into the hole.", ("radius",), ratio=_grown,
           radius=(5, 1, 30))
def navier_stokes(frame: np.ndarray, mask: np.ndarray, radius: int) -> np.ndarray:
    """Bertalmio, Bertozzi & Sapiro 2001, by OpenCV."""
    return cv2.inpaint(frame, mask.astype(np.uint8), radius, cv2.INPAINT_NS)


@_register("Blur", "Hides detail and keeps the colours, those of the thing itself too.", ("radius",),
           radius=(20, 2, 80))
def blur(frame: np.ndarray, mask: np.ndarray, radius: int) -> np.ndarray:
    """The picture itself, out of focus."""
    return cv2.GaussianBlur(frame, (0, 0), radius)


@_register("Mean colour", "One flat colour, the mean of what is left.")
def mean_colour(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mean of the pixels that stay."""
    return np.broadcast_to(np.rint(frame[~mask].mean(0)).astype(np.uint8), frame.shape)


def check_mask(frame: np.ndarray, mask: np.ndarray) -> None:
    """A boolean mask of the frame's size that erases something and leaves something."""
    height, width = frame.shape[:2]
    if mask.shape != (height, width):
        seen = " x ".join(str(n) for n in mask.shape[::-1])
        raise BadInput(f"the mask must be as large as the picture, {width} x {height}, got {seen}; "
                       "draw it again")
    if not mask.any():
        raise BadInput("the mask is empty: paint over what should disappear")
    if mask.all():
        raise BadInput("the mask covers the whole picture: there is nothing left to fill from; "
                       "erase a part of it")


def fill(frame: np.ndarray, mask: np.ndarray, name: str = "patch_match",
         params: dict[str, Any] | None = None, preview: bool = False) -> np.ndarray:
    """The frame with its masked pixels filled, all others as they were; a preview fills a small copy."""
    *_, filled = pieces(frame, mask, name, params, preview)
    assert filled is not None
    return filled


def pieces(frame: np.ndarray, mask: np.ndarray, name: str = "patch_match",
           params: dict[str, Any] | None = None, preview: bool = False) -> Iterator[np.ndarray | None]:
    """The same in pieces, so that it can be stopped: None after each, and the filled frame after the last."""
    check_frame(frame)
    mask = mask.astype(bool)
    check_mask(frame, mask)
    chosen = FILLS.get(name.replace("-", "_"))
    if chosen is None:
        raise BadInput(f"there is no fill {name[:40]!r}; there are {', '.join(FILLS)}")
    settings = checked(chosen.parameters, params or {}, chosen.title)
    ratio = chosen.ratio(int(mask.sum()), **settings)
    if preview:
        ratio = min(ratio, PREVIEW_SIDE / max(frame.shape[:2]))
        settings = {**settings, **chosen.hurry}
    work = chosen.run(frame, mask, **settings) if ratio >= 1 else \
        _smaller(frame, mask, chosen, settings, ratio)
    filled = yield from _last(work)
    yield np.where(mask[..., None], filled, frame)


def _last(work: np.ndarray | Iterator[np.ndarray | None]) -> Generator[None, None, Any]:
    """Pass on the pieces of a fill, and return what comes after them; others come in one."""
    if isinstance(work, np.ndarray):
        return work
    for found in work:
        if found is None:
            yield None
    return found


def _smaller(frame: np.ndarray, mask: np.ndarray, chosen: Fill, settings: dict[str, Any],
             ratio: float) -> Iterator[np.ndarray | None]:
    """Filled in a smaller copy and scaled up again."""
    height, width = frame.shape[:2]
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    less = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    hole = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    if hole.all():                             # all but a line: at this size there is nothing to fill from
        yield mean_colour(frame, mask)
        return
    scaled = {name: max(1, round(value * ratio)) if name in chosen.lengths else value
              for name, value in settings.items()}
    filled = yield from _last(chosen.run(less, hole, **scaled))
    yield cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)
