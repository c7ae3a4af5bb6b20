"""The only place that knows colour: raw heat to bytes for the page, and to pictures for files.

Signed maps are coloured around zero, unsigned ones from zero; both end at the 99th percentile of |heat|,
and the raw maximum is always told beside the picture.
"""
from __future__ import annotations

import cv2
import numpy as np

from explainers.base import METHODS, Explanation

CLIP = 99                                      # percentile of |heat| at which colour ends
FADE = 0.6                                     # opacity grows with |value| to this power, as in heat.js
STRIP = 1_000_000                              # pixels that are drawn at once


def _ramp(*stops: int) -> np.ndarray:
    """256 colours between evenly spaced stops, given as 0xRRGGBB."""
    colours = np.array([[s >> 16, s >> 8 & 255, s & 255] for s in stops], float)
    places = np.linspace(0, 1, len(stops))
    steps = np.linspace(0, 1, 256)
    return np.stack([np.interp(steps, places, c) for c in colours.T], -1).round().astype(np.uint8)


def _opencv(number: int) -> np.ndarray:
    """One of OpenCV's 256-colour maps, as RGB."""
    return cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], number)[:, 0, ::-1].copy()


# 256 x 3 uint8 each. Sequential: equal steps look equal, and lightness alone tells them apart.
SEQUENTIAL = {"inferno": _opencv(cv2.COLORMAP_INFERNO), "viridis": _opencv(cv2.COLORMAP_VIRIDIS),
              "cividis": _opencv(cv2.COLORMAP_CIVIDIS)}
# ColorBrewer's RdBu, PRGn and PuOr: pale at zero, safe for the colour-blind.
DIVERGING = {
    "blue-red": _ramp(0x053061, 0x2166AC, 0x4393C3, 0x92C5DE, 0xF7F7F7, 0xF4A582, 0xD6604D, 0xB2182B,
                      0x67001F),
    "purple-green": _ramp(0x40004B, 0x762A83, 0x9970AB, 0xC2A5CF, 0xF7F7F7, 0xA6DBA0, 0x5AAE61, 0x1B7837,
                          0x00441B),
    "purple-orange": _ramp(0x2D004B, 0x542788, 0x8073AC, 0xB2ABD2, 0xF7F7F7, 0xFDB863, 0xE08214, 0xB35806,
                           0x7F3B08),
}
PALETTES = SEQUENTIAL | DIVERGING


def clip_at(heat: np.ndarray) -> float:
    """Where colour ends: the 99th percentile of |heat|, or its maximum where nearly all of it is zero."""
    size = np.abs(heat)
    scale = float(np.percentile(size, CLIP)) if size.size else 0.0
    return scale if scale > 1e-12 else float(size.max(initial=0))


def _shares(heat: np.ndarray, scale: float) -> np.ndarray:
    """Heat as a share of the scale, clipped to [-1, 1]."""
    return np.clip(heat / scale, -1, 1) if scale > 1e-12 else np.zeros_like(heat)


def quantise(heat: np.ndarray, signed: bool) -> tuple[bytes, float]:
    """8-bit rows and the |value| they end at: signed (byte-128)/127*scale, else byte/255*scale."""
    scale = clip_at(heat)
    share = _shares(heat, scale)
    data = np.rint(128 + 127 * share) if signed else np.rint(255 * share.clip(0))
    return data.astype(np.uint8).tobytes(), scale


def colour(heat: np.ndarray, signed: bool, scale: float | None = None,
           palette: str | None = None) -> np.ndarray:
    """Heat as HxWx3 uint8; give two maps that are compared the same scale."""
    valid = DIVERGING if signed else SEQUENTIAL
    name = palette or next(iter(valid))
    if name not in valid:
        kind = "signed" if signed else "unsigned"
        raise ValueError(f"palette for {kind} maps must be one of {', '.join(valid)}, got {name!r}")
    share = _shares(heat, clip_at(heat) if scale is None else scale)
    place = (share + 1) / 2 if signed else share.clip(0)
    return valid[name][np.rint(place * 255).astype(np.uint8)]


def overlay(frame: np.ndarray, explanation: Explanation, opacity: float = 0.7, palette: str | None = None,
            scale: float | None = None) -> np.ndarray:
    """The frame with the heat drawn where the model saw it, and a line that says what the colours mean."""
    if explanation.canvas is None:
        raise ValueError("an explanation needs its canvas to be drawn; take it from explain() or steps()")
    scale = clip_at(_seen(explanation)) if scale is None else scale
    heat = explanation.canvas.map_on_frame(explanation.heat)
    picture = np.empty_like(frame, np.uint8)
    many = max(1, STRIP // max(1, frame.shape[1]))
    for top in range(0, len(frame), many):     # in strips: the numbers behind 64 megapixels take gigabytes
        rows = slice(top, top + many)
        part = heat[rows]
        tint = colour(part, explanation.signed, scale, palette)
        share = _shares(part if explanation.signed else part.clip(0), scale)
        alpha = opacity * np.abs(share)[..., None] ** FADE
        picture[rows] = np.rint(frame[rows] * (1 - alpha) + tint * alpha)
    return _with_legend(picture, legend(explanation, scale), explanation.signed, palette)


def _seen(explanation: Explanation) -> np.ndarray:
    """The heat on the picture, without padding, which would pull the percentile down."""
    return explanation.heat[explanation.canvas.inside] if explanation.canvas else explanation.heat


def legend(explanation: Explanation, scale: float | None = None) -> str:
    """What the colours mean, in one line: the method, the range, the raw maximum."""
    found = METHODS.get(explanation.method)
    title = found.title if found else explanation.method.replace("_", " ") or "map"
    if explanation.empty:
        return f"{title}: no evidence"
    scale = clip_at(_seen(explanation)) if scale is None else scale
    low = -scale if explanation.signed else 0
    return f"{title}: {low:.3g} to {scale:.3g}, max {explanation.raw_max:.3g}"


def _with_legend(picture: np.ndarray, text: str, signed: bool, palette: str | None) -> np.ndarray:
    """A colour bar and the text on a dark strip along the lower edge, sized to the picture."""
    height, width = picture.shape[:2]
    strip = min(height // 4, max(14, min(height, width) // 22))
    if strip < 9:                              # nothing legible fits
        return picture
    bar = width // 5
    band = np.full((strip, width, 3), 24, np.uint8)
    values = np.linspace(-1 if signed else 0, 1, bar, dtype=np.float32)[None]
    edge = strip // 4
    band[edge:strip - edge, edge:edge + bar] = colour(values, signed, 1.0, palette)
    size = strip / 32
    (wide, high), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    room = width - bar - 4 * edge
    size *= min(1.0, room / max(wide, 1))
    cv2.putText(band, text, (bar + 3 * edge, (strip + high) // 2), cv2.FONT_HERSHEY_SIMPLEX, size,
                (255, 255, 255), 1, cv2.LINE_AA)
    out = picture.copy()
    out[height - strip:] = band
    return out
