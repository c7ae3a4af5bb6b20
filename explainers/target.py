"""The words in which people name a target, on the command line, on the page and from Python."""
from __future__ import annotations

from dataclasses import replace

from explainers.base import Look
from models.base import BadInput, Box, Target

SIDES = ("left", "top", "right", "bottom")
GRAMMAR = {
    "classify": "class:INDEX, with /versus:INDEX if you like",
    "detect": "box:N, candidate:N or near:X,Y, then /class:NAME, /versus:NAME, /side:left, /objectness",
    "caption": "word:N or caption, then /versus:WORD, /text:ANOTHER CAPTION",
}


def class_index(labels: dict[int, str], text: str) -> int:
    """An index, or a name that only one class has."""
    if text.isdigit():
        if int(text) in labels:
            return int(text)
        raise BadInput(f"class must be from {min(labels)} to {max(labels)}, got {text}")
    found = [i for i, name in labels.items() if name.lower() == text.strip().lower()]
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInput(f"{len(found)} classes are called {text!r}: say which, {' or '.join(map(str, found))}")
    near = [f"{i} {name}" for i, name in labels.items() if text.strip().lower() in name.lower()][:5]
    raise BadInput(f"no class is called {text!r}" + (f"; did you mean {', '.join(near)}?" if near else
                   f"; use an index from {min(labels)} to {max(labels)}"))


def parse_target(text: str | Target | None, look: Look) -> Target:
    """From 'class:281/versus:282', 'box:0/side:left', 'word:3' ...; None is what the model is surest of."""
    if isinstance(text, Target):
        return text
    parts = [p.partition(":") for p in (text or "").split("/") if p]
    task = look.model.info.task
    if task == "caption":
        return look.model.caption_target(look, [(k, v) for k, _, v in parts])  # type: ignore[attr-defined]
    target = _place(look, parts[0][0], parts[0][2]) if parts and parts[0][0] in (
        "box", "candidate", "near") else _place(look, "", "")
    for key, _, value in parts:
        if key in ("box", "candidate", "near") and task == "detect":
            continue
        if key in ("class", "versus"):
            index = class_index(look.model.labels, value)
            target = replace(target, index=index) if key == "class" else replace(target, versus=index)
        elif key == "side" and task == "detect" and value in SIDES:
            target = replace(target, part=value)
        elif key == "objectness" and task == "detect":
            target = replace(target, part="objectness")
        else:
            raise BadInput(f"target {text!r} is not understood for {task}: say {GRAMMAR[task]}")
    return target


def _place(look: Look, key: str, value: str) -> Target:
    """The class or the box that the rest of the target is about."""
    seen = look.prediction
    if seen.task == "classify":
        return Target(index=seen.classes[0].index)
    boxes: tuple[Box, ...] = seen.candidates if key == "candidate" else seen.boxes
    if not boxes:
        raise BadInput("there is no box to explain in this picture; lower the threshold or show it an object")
    if key == "near":
        chosen = _nearest(boxes, value, look.frame.shape[:2])
    else:
        if value and not (value.isdigit() and int(value) < len(boxes)):
            raise BadInput(f"{key} must be from 0 to {len(boxes) - 1}, got {value}")
        chosen = boxes[int(value or 0)]
    return Target(index=chosen.index, anchor=chosen.anchor)


def _nearest(boxes: tuple[Box, ...], value: str, size: tuple[int, ...]) -> Box:
    """The box whose middle is nearest to X,Y, given as shares of the frame's width and height."""
    try:
        x, y = (float(v) for v in value.split(","))
    except ValueError:
        raise BadInput(f"near must be X,Y as shares of the picture from 0 to 1, got {value!r}") from None
    def away(b: Box) -> float:
        return ((b.box[0] + b.box[2]) / 2 / size[1] - x) ** 2 + ((b.box[1] + b.box[3]) / 2 / size[0] - y) ** 2
    return min(boxes, key=away)
