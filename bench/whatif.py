"""What erasing costs, how well holes are filled, and whether undesirable pixels are undesirable."""
from __future__ import annotations

import base64
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from bench import browser
from bench.browser import photograph
from bench.loaded import loaded
from bench.table import Row, at_least, at_most
from explainers.inpaint import fill
from explainers.undesirable import WEIGHTS
from explainers.undesirable.metric import DRAWS, labelled, measure
from models.base import Model

DATA = Path(os.environ.get("SEEWHY_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
# One stroke after the other on one kept picture, as the page sends them.
STROKES = """socket.emit('frame', { seq: 1, jpeg: bytes(given.jpeg), keep: true });
  await once('result');
  for (const [i, mask] of given.masks.entries())
    await timed('edit', { id: `w${i}`, seq: 1, mask: bytes(mask), fill: given.fill });"""


def rows(quick: bool = False) -> Iterator[Row]:
    """Waiting after a stroke, decibels of the fills, and the metric of undesirable pixels."""
    yield from waiting(photograph("cat"), 12 if quick else 40)
    yield full_fill(photograph("bus"))
    folder = DATA / "imagenet"
    if not folder.is_dir():
        yield Row("fills and undesirable pixels on photographs", "no data", note=f"SEEWHY_DATA names {DATA}")
        return
    yield from decibels(folder)
    for row in undesirable(loaded("efficientnet-lite0"), folder, 2 if quick else FEW):
        yield Row(row.what, row.measured, note=row.note)           # --long judges it, on all pictures


def long_rows() -> Iterator[Row]:
    """Also undesirable pixels on every picture that the model gets wrong."""
    yield from rows()
    if (DATA / "imagenet").is_dir():
        yield from undesirable(loaded("efficientnet-lite0"), DATA / "imagenet", None)


def waiting(frame: np.ndarray, repeats: int) -> Iterator[Row]:
    """From release to the new prediction in a browser, over the fill and the prediction themselves."""
    draw = np.random.default_rng(0)
    with browser.page() as run:
        for name in ("telea", "patch_match"):
            strokes = [_stroke(draw) for _ in range(repeats + 3)]
            masks = [base64.b64encode(stroke).decode() for stroke in strokes]
            trips = run(STROKES, {"task": "classify", "jpeg": browser.camera(frame), "masks": masks,
                                  "fill": name})[3:]
            alone = [_filling(frame, stroke, name) for stroke in strokes[3:]]
            ratios = [trip / (filled + browser.of_model(ms))
                      for (trip, ms), filled in zip(trips, alone, strict=True)]
            took = statistics.median(trip for trip, _ in trips)
            yield at_most(f"release to prediction / fill and predict, p95, {name}",
                          float(np.percentile(ratios, 95)), 1.3,
                          f"median {statistics.median(ratios):.2f}, {took:.0f} ms")


def _stroke(draw: np.random.Generator) -> bytes:
    """A brush stroke on 640x480 as the page sends it."""
    mask = np.zeros((480, 640), np.uint8)
    ends = draw.integers((80, 60), (560, 420), size=(3, 2))
    cv2.polylines(mask, [ends.astype(np.int32)], False, 255, 40)
    return cv2.imencode(".png", mask)[1].tobytes()


def _filling(frame: np.ndarray, stroke: bytes, name: str) -> float:
    """Milliseconds of filling that hole here, with nothing else to do."""
    picture = cv2.resize(frame, (640, 480), interpolation=cv2.INTER_AREA)
    mask = np.asarray(cv2.imdecode(np.frombuffer(stroke, np.uint8), cv2.IMREAD_GRAYSCALE)) > 127
    start = time.perf_counter()
    fill(picture, mask, name)
    return 1000 * (time.perf_counter() - start)


def full_fill(frame: np.ndarray) -> Row:
    """PatchMatch on a tenth of 640x480: seconds of one core: other work on the machine does not count."""
    picture = cv2.resize(frame, (640, 480), interpolation=cv2.INTER_AREA)
    y, x = np.ogrid[:480, :640]
    mask = (y - 240) ** 2 + (x - 320) ** 2 < 0.1 * 480 * 640 / np.pi
    spent = []
    for _ in range(3):
        start = time.process_time()
        fill(picture, mask, "patch_match")
        spent.append(time.process_time() - start)
    start = time.process_time()
    fill(picture, mask, "patch_match", preview=True)
    return at_most("PatchMatch, a tenth of 640x480, seconds of one core", min(spent), 1.5,
                   f"preview {time.process_time() - start:.2f}")


def decibels(folder: Path) -> Iterator[Row]:
    """PatchMatch against Telea, with known holes, where texture recurs and where it is only restless."""
    for holes, what in ((textured_holes(folder, 20), "texture that recurs"),
                        (restless_holes(folder, 20), "most restless pictures")):
        values = {name: float(np.mean([psnr(fill(p, m, name), p, m) for p, m in holes]))
                  for name in ("patch_match", "telea", "navier_stokes")}
        note = ", ".join(f"{name} {value:.2f} dB" for name, value in values.items())
        gain = values["patch_match"] - values["telea"]
        claim = f"PatchMatch - Telea, dB over 20 holes, {what}"
        yield at_least(claim, gain, 1, note) if what == "texture that recurs" else Row(
            claim, gain, note=f"{note}; random texture: the best guess is a blur, no exemplar wins")


def undesirable(model: Model, folder: Path, most: int | None) -> Iterator[Row]:
    """What taking the most undesirable pixels away does, on the pictures the model gets wrong."""
    for kind in WEIGHTS:
        right: list[bool] = []
        for row in measure(model, labelled(folder), kind, only_wrong=True, seen=right, most=most):
            yield at_least(f"{kind}: {100 * row.share:.0f} % taken away: change of p less random's",
                           row.change - row.random, 0.01,
                           f"p {row.change:+.3f}, improved {row.improved:.0%}, righted {row.righted:.0%}; "
                           f"{DRAWS} random regions {row.random:+.3f}, {row.random_improved:.0%}, "
                           f"{row.random_righted:.0%}; other r {row.other:+.3f}, {row.other_improved:.0%}")
        yield Row(f"{kind}: pictures it gets wrong", float(len(right)))


FEW = 3                           # pictures of the usual look at undesirable pixels
SIDE = 48
BLOCK = 12
TEXTURED = 25.0                   # mean Sobel gradient that each block of a square must have, so no lone edge


def psnr(filled: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Decibels over the masked pixels alone."""
    error = np.square(filled[mask].astype(np.float64) - truth[mask]).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def _pictures(folder: Path) -> list[np.ndarray]:
    return [np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)) for path in sorted(folder.glob("*.jpg"))]


def _gradient(grey: np.ndarray) -> np.ndarray:
    return np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))


def _recurring_square(picture: np.ndarray) -> tuple[float, int, int]:
    """How well the best of nine textured squares recurs elsewhere in the picture, and where it lies."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    energy, best = _gradient(grey), (-1.0, 0, 0)
    for down in (0.25, 0.5, 0.75):
        for across in (0.25, 0.5, 0.75):
            y, x = (round(share * side - SIDE / 2) for share, side in zip((down, across), grey.shape,
                                                                          strict=True))
            blocks = energy[y:y + SIDE, x:x + SIDE].reshape(SIDE // BLOCK, BLOCK, SIDE // BLOCK, BLOCK)
            if blocks.mean((1, 3)).min() < TEXTURED:
                continue
            likeness = cv2.matchTemplate(grey, grey[y:y + SIDE, x:x + SIDE], cv2.TM_CCOEFF_NORMED)
            likeness[max(0, y - SIDE + 1):y + SIDE, max(0, x - SIDE + 1):x + SIDE] = -1
            best = max(best, (float(likeness.max()), y, x))
    return best


def textured_holes(folder: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures whose texture recurs, each with the square to erase.

    Of nine squares of 48 pixels in each picture those with a mean gradient of at least TEXTURED in each of
    their sixteen blocks; of these the one that correlates best with some other place of the picture it does
    not touch; of all pictures the `count` best. (Where texture is random and never recurs, the best guess is
    a blur, and no exemplar wins.)
    """
    pictures = _pictures(folder)
    found = sorted(((_recurring_square(p), i) for i, p in enumerate(pictures)), reverse=True)[:count]
    return [(pictures[i], _square(pictures[i], y, x)) for (_, y, x), i in found]


def restless_holes(folder: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The `count` pictures with the most gradient in their calmer quarter; the middle tenth is erased."""
    def calm(picture: np.ndarray) -> float:
        energy = _gradient(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32))
        blocks = cv2.resize(energy, (energy.shape[1] // 32, energy.shape[0] // 32),
                            interpolation=cv2.INTER_AREA)
        return float(np.percentile(blocks, 25))

    pictures = _pictures(folder)
    chosen = sorted(pictures, key=calm, reverse=True)[:count]
    return [(p, _square(p, p.shape[0] // 2 - 54, p.shape[1] // 2 - 54, 108)) for p in chosen]


def _square(picture: np.ndarray, y: int, x: int, side: int = SIDE) -> np.ndarray:
    mask = np.zeros(picture.shape[:2], bool)
    mask[y:y + side, x:x + side] = True
    return mask
