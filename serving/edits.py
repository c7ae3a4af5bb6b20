"""What a person erased, checked and filled: a mask as PNG bytes and a picture in, the edited picture out."""
from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from explainers.inpaint import FILLS, check_mask, pieces
from models.base import BadInput, Prediction

MASK_BYTES = 2_000_000
PNG = b"\x89PNG\r\n\x1a\n"


def describe() -> list[dict[str, Any]]:
    """Every fill with its parameters, for `ready`."""
    return [f.describe() for f in FILLS.values()]


def fingerprint(frame: np.ndarray) -> str:
    """The picture's own name, by which a saved edit finds it again: 16 hexadecimal digits."""
    return hashlib.sha256(repr(frame.shape).encode() + np.ascontiguousarray(frame).tobytes()).hexdigest()[:16]


def decode_mask(png: bytes, frame: np.ndarray) -> np.ndarray:
    """PNG bytes to a boolean mask of the frame's size; the header is read before anything is unpacked."""
    if not isinstance(png, bytes | bytearray) or len(png) == 0:
        raise BadInput("the mask is empty: paint over what should disappear")
    if len(png) > MASK_BYTES:
        raise BadInput(f"a mask must be at most {MASK_BYTES:,} bytes of PNG, got {len(png):,}")
    if png[:8] != PNG or len(png) < 33:
        raise BadInput("the mask must be a PNG, white where the picture is erased; "
                       "the bytes are something else")
    height, width = frame.shape[:2]
    wide, high = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
    if (wide, high) != (width, height):
        raise BadInput(f"the mask must be as large as the picture, {width} x {height}, got {wide} x {high}; "
                       "draw it again on this picture")
    grey = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise BadInput("the mask is a broken PNG and cannot be read; draw it again")
    mask = grey > 127
    check_mask(frame, mask)
    return mask


def apply(frame: np.ndarray, mask: bytes, fill_name: str, params: dict[str, Any] | None = None,
          preview: bool = False, picture: str | None = None) -> np.ndarray:
    """The edited frame; `picture` is the fingerprint the edit was drawn on, when the sender knows it."""
    *_, edited = applying(frame, mask, fill_name, params, preview, picture)
    assert edited is not None
    return edited


def applying(frame: np.ndarray, mask: bytes, fill_name: str, params: dict[str, Any] | None = None,
             preview: bool = False, picture: str | None = None) -> Iterator[np.ndarray | None]:
    """The same in pieces: None after each, and the edited frame after the last."""
    if picture and picture != fingerprint(frame):
        raise BadInput(f"this edit was drawn on another picture ({picture}); the one held here is "
                       f"{fingerprint(frame)}. Open the picture it belongs to, or draw it again")
    yield from pieces(frame, decode_mask(mask, frame), fill_name, params, preview)


def compared(before: Prediction, after: Prediction) -> dict[str, Any]:
    """Both probabilities of every class that is among the best of either side, by index."""
    if before.probabilities is None or after.probabilities is None:
        return {}
    shown = {c.index: c.label for p in (before, after) for c in p.classes}
    return {"compared": [{"index": i, "label": label, "before": round(float(before.probabilities[i]), 6),
                          "after": round(float(after.probabilities[i]), 6)} for i, label in shown.items()]}
