"""What the server says, in the shapes of PROTOCOL.md: plain numbers, words and bytes, never NaN."""
from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

import explainers
from explainers import Explanation, Look
from explainers.render import quantise
from explainers.target import SIDES
from models import store
from models.base import BadInput, ModelInfo, Target
from serving import edits
from serving.engine import Wish
from serving.frames import encode_jpeg
from serving.settings import Settings

LONGEST = 1_000                                # letters of a sentence
LIVE_SIDE, FULL_SIDE = 256, 416                # the longest side of a heat map that travels
LIVE_EACH = 64                                 # of one of many, such as a word's: they are a dozen a frame


class Unknown(BadInput):
    """A name that does not exist; `valid` are those that do."""

    def __init__(self, message: str, valid: list[str]):
        super().__init__(message)
        self.valid = valid


def plain(value: Any) -> Any:
    """The same with Python's own numbers; what is not a number becomes None, which JSON can carry."""
    if isinstance(value, dict):
        return {k if isinstance(k, str) else str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def short(sentence: str) -> str:
    """The sentence, its middle left out when what it repeats is long: an answer is no echo."""
    if len(sentence) <= LONGEST:
        return sentence
    return f"{sentence[:LONGEST // 2]} ... {sentence[-LONGEST // 2:]}"


def failure(problem: BaseException) -> dict[str, Any]:
    """An `error` without its address: a code and a sentence that may be shown as it is."""
    if isinstance(problem, store.StoreError):
        return {"code": "offline", "message": short(str(problem))}
    if isinstance(problem, BadInput):
        valid = getattr(problem, "valid", None)
        return {"code": getattr(problem, "code", "bad_input"), "message": short(str(problem)),
                **({"valid": valid} if valid else {})}
    return {"code": "internal", "message": "Something went wrong inside while working on this; nothing of "
            "yours is lost. Try again, or choose another model or method."}


def ready(settings: Settings, catalog: dict[str, ModelInfo], wish: Wish, known: dict[str, Any] | None,
          presets: list[dict[str, Any]]) -> dict[str, Any]:
    """All the page needs to build itself; `known` is what the engine says of its model, if it is here."""
    return plain({
        "catalog": [{"name": i.name, "task": i.task, "title": i.title, "embedded": i.embedded,
                     "megabytes": i.megabytes, "licence": i.licence, "source": i.source, "note": i.note,
                     "settings": [p.describe() for p in i.settings],
                     "present": all(store.present(a) for a in i.assets)} for i in catalog.values()],
        "tasks": list(dict.fromkeys(i.task for i in catalog.values())),
        "methods": [m.describe() for m in explainers.METHODS.values()],
        "preferred": explainers.PREFERRED,
        "fills": edits.describe(),
        "presets": presets,
        "limits": settings.limits,
        "labels": {wish.model: known["labels"]} if known else {},
        "offers": {wish.model: known["offers"]} if known else {},
        "lacking": {wish.model: known["lacking"]} if known else {},
        "configured": wish.describe(),
    })


def seen(look: Look) -> dict[str, Any]:
    """What a `result` says of one look, without whose it is."""
    height, width = look.frame.shape[:2]
    return {"task": look.model.info.task, "model": look.model.info.name, "size": [width, height],
            "area": list(look.canvas.area), **look.prediction.describe()}


def small(heat: np.ndarray, side: int) -> np.ndarray:
    """The map, its long side at most `side`."""
    longest = max(heat.shape)
    if longest <= side:
        return heat
    size = [max(1, round(n * side / longest)) for n in heat.shape[::-1]]
    return cv2.resize(np.ascontiguousarray(heat, np.float32), size, interpolation=cv2.INTER_AREA)


def _heat(heat: np.ndarray, signed: bool, look: Look, side: int) -> dict[str, Any]:
    shown = small(heat[look.canvas.inside], side)
    data, scale = quantise(shown, signed)
    return {"heat": data, "shape": list(shown.shape), "scale": scale}


def _together(maps: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """All maps' bytes in one piece: the browser's client hangs up on a message of more than ten."""
    shapes = {name: {"shape": m["shape"], "scale": m["scale"]} for name, m in maps.items()}
    return {"maps": shapes, "map_bytes": b"".join(m["heat"] for m in maps.values())} if maps else {"maps": {}}


def unsqueezed(picture: np.ndarray, look: Look) -> np.ndarray:
    """A picture on the canvas, cut to what shows the frame and in its proportions; others as they are."""
    if picture.shape[:2] != look.canvas.size:
        return picture
    shown = picture[look.canvas.inside]
    left, top, right, bottom = look.canvas.area
    ratio = (right - left) / max(bottom - top, 1e-9) * shown.shape[0] / shown.shape[1]
    if abs(ratio - 1) < 0.02:                  # a cell's rounding, nothing that anybody sees
        return shown
    # The side that was squeezed more grows, so that no pixel is lost.
    width, height = shown.shape[1] * max(1.0, ratio), shown.shape[0] * max(1.0, 1 / ratio)
    return cv2.resize(np.ascontiguousarray(shown, np.float32), (round(width), round(height)),
                      interpolation=cv2.INTER_LINEAR)


def _image(picture: np.ndarray, look: Look) -> bytes:
    return encode_jpeg(unsqueezed(picture, look))


def explained(e: Explanation, look: Look, live: bool = False) -> dict[str, Any]:
    """What an `explanation` says, without whose it is."""
    side = LIVE_SIDE if live or not e.done else FULL_SIDE
    each = LIVE_EACH if live else side
    pictures = {**({} if e.image is None else {"image": e.image}), **e.images}
    labels = look.model.labels
    return {
        "method": e.method, "title": title(e.target, labels) if e.target else "",
        **_heat(e.heat, e.signed, look, side), "area": list(look.canvas.area), "signed": e.signed,
        "raw_max": e.raw_max, "empty": e.empty,
        **_together({name: _heat(m, e.signed, look, each) for name, m in e.maps.items()}),
        "images": {name: _image(p, look) for name, p in pictures.items()},
        "curves": e.curves, "numbers": e.numbers, "note": e.note,
        "after": e.prediction.describe() if e.prediction else None,
        "progress": e.progress, "done": e.done,
    }


def title(target: Target, labels: dict[int, str]) -> str:
    """A target in words: why tabby; why bus and not truck; left side of person; why the word 'dog'."""
    def name(index: int | None) -> str:
        return labels.get(index, str(index)) if index is not None else "it"

    if target.words is not None:
        if target.position is None:
            return "why this caption"
        word = target.index if target.index is not None else target.words[target.position]
        rest = "" if target.versus is None else f" and not '{name(target.versus)}'"
        return f"why the word '{name(word)}'{rest}"
    if target.part in SIDES:
        return f"{target.part} side of {name(target.index)}"
    if target.part == "objectness":
        return "why there is an object at all"
    rest = "" if target.versus is None else f" and not {name(target.versus)}"
    return f"why {name(target.index)}{rest}"
