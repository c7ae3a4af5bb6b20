"""What erasing costs, how well holes are filled, and whether undesirable pixels are undesirable."""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SIDE = 48
TEXTURED = 60.0                   # mean Sobel gradient of grey levels that a square must have


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
            if energy[y:y + SIDE, x:x + SIDE].mean() < TEXTURED:
                continue
            likeness = cv2.matchTemplate(grey, grey[y:y + SIDE, x:x + SIDE], cv2.TM_CCOEFF_NORMED)
            likeness[max(0, y - SIDE + 1):y + SIDE, max(0, x - SIDE + 1):x + SIDE] = -1
            best = max(best, (float(likeness.max()), y, x))
    return best


def textured_holes(folder: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures whose texture recurs, each with the square to erase.

    Of nine squares of 48 pixels in each picture those with a mean gradient of at least TEXTURED; of these the
    one that correlates best with some other place of the picture it does not touch; of all pictures the
    `count` best. (Where texture is random and never recurs, the best guess is a blur, and no exemplar wins.)
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
