"""The words in which people name a target, on the command line, on the page and from Python.

`parse` reads them without a picture; `resolve` finds in a picture what they name.
"""
from __future__ import annotations

import re
from dataclasses import dataclass, replace

from explainers.base import Look
from models.base import SIDES, BadInput, Box, Captioner, Target

GRAMMAR = {
    "classify": "class:INDEX, with /versus:INDEX if you like",
    "detect": "box:N, candidate:N or near:X,Y, then /class:NAME, /versus:NAME, /side:left, /objectness",
    "caption": "word:N or caption, then /versus:WORD, /text:ANOTHER CAPTION",
}
KEYS = {"classify": ("class", "versus"),
        "detect": ("box", "candidate", "near", "class", "versus", "side", "objectness"),
        "caption": ("word", "caption", "versus", "text")}
PLACES = ("box", "candidate", "near", "word", "caption")
LONGEST = 500
DIGITS = 6                       # no picture has a million boxes or words


class NotInThisPicture(BadInput):
    """A target that another picture may have: a box, a candidate or a word that this one lacks."""


@dataclass(frozen=True)
class Question:
    """A target as it was asked for, understood but for what only a picture or a model's labels can tell."""

    text: str = ""
    place: str = ""                            # box, candidate, near, word or caption; nothing is the surest
    number: int = 0                            # which box, candidate or word
    at: tuple[float, float] = (0.0, 0.0)       # near: shares of the picture's width and height
    label: str | None = None                   # a class, by index or name
    versus: str | None = None                  # the same, or a word
    part: str = "class"
    caption: str | None = None                 # what is to be read instead of what was said


def parse(text: str | None, task: str) -> Question:
    """From 'class:281/versus:282', 'box:0/side:left', 'word:3'; nothing is what the model is surest of."""
    if text and len(text) > LONGEST:
        raise BadInput(f"a target may have at most {LONGEST} letters, got {len(text)}; shorten it")
    question, seen = Question(text or ""), set[str]()
    for part in filter(None, question.text.split("/")):
        key, _, value = part.partition(":")
        kind = "place" if key in PLACES else "part" if key in ("side", "objectness") else key
        bare = key in ("caption", "objectness") and value
        if key not in KEYS[task] or kind in seen or bare or (key == "side" and value not in SIDES):
            raise BadInput(f"target {_short(question.text)!r} is not understood for {task}: "
                           f"say {GRAMMAR[task]}")
        seen.add(kind)
        question = _with(question, key, value)
    if task == "caption" and question.versus is not None and question.place != "word":
        raise BadInput("versus compares one word with another: say which, as in word:1/versus:cat")
    return question


def _with(question: Question, key: str, value: str) -> Question:
    """The question with one more part of it understood."""
    if key in ("box", "candidate", "word"):
        return replace(question, place=key, number=_number(key, value))
    if key == "caption":
        return replace(question, place=key)
    if key == "near":
        return replace(question, place=key, at=_point(value))
    if key == "class":
        return replace(question, label=value)
    if key == "versus":
        return replace(question, versus=value)
    if key == "text":
        return replace(question, caption=value)
    return replace(question, part=value or key)


def _number(key: str, value: str) -> int:
    if not value and key != "word":
        return 0
    if not _digits(value) or len(value) > DIGITS:
        raise BadInput(f"{key} must be a whole number from 0, got {_short(value)!r}; say {key}:0")
    return int(value)


def _digits(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _point(value: str) -> tuple[float, float]:
    """X,Y as shares of the frame's width and height."""
    number = r"(-?[0-9.]+(?:e-?[0-9]+)?)"
    found = re.fullmatch(rf"{number}, *{number}", value)
    try:
        x, y = (float(v) for v in found.groups()) if found else (-1.0, -1.0)
    except ValueError:
        x, y = -1.0, -1.0
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise BadInput(f"near must be X,Y as shares of the picture from 0 to 1, got {_short(value)!r}")
    return x, y


def _short(text: str) -> str:
    """What came, and no more of it than a sentence bears."""
    return text if len(text) <= 40 else text[:39] + "…"


def resolve(question: Question, look: Look) -> Target:
    """The target in this picture; NotInThisPicture where another one may have it."""
    if look.model.info.task == "caption":
        return _said(question, look)
    # The labels first: a class that the model has not is no matter of this picture, whatever it shows.
    index, versus = (None if name is None else class_index(look.model.labels, name)
                     for name in (question.label, question.versus))
    target = replace(_place(question, look), part=question.part, versus=versus)
    return target if index is None else replace(target, index=index)


def class_index(labels: dict[int, str], text: str) -> int:
    """An index, or a name that only one class has."""
    if _digits(text):
        if int(text) in labels:
            return int(text)
        raise BadInput(f"class must be from {min(labels)} to {max(labels)}, got {_short(text)}")
    wanted = text.strip().lower()
    found = [i for i, name in labels.items() if name.lower() == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInput(f"{len(found)} classes are called {_short(text)!r}: "
                       f"say which, {' or '.join(map(str, found))}")
    near = [f"{i} {name}" for i, name in labels.items() if wanted in name.lower()][:5]
    raise BadInput(f"no class is called {_short(text)!r}" + (f"; did you mean {', '.join(near)}?" if near else
                   f"; use an index from {min(labels)} to {max(labels)}"))


def _place(question: Question, look: Look) -> Target:
    """The class or the box that the rest of the target is about."""
    seen = look.prediction
    if seen.task == "classify":
        return Target(index=seen.classes[0].index)
    boxes: tuple[Box, ...] = seen.candidates if question.place == "candidate" else seen.boxes
    if not boxes:
        raise NotInThisPicture("there is no box to explain in this picture; "
                               "lower the threshold or show it an object")
    if question.place == "near":
        chosen = _nearest(boxes, question.at, look.frame.shape[:2])
    elif question.number < len(boxes):
        chosen = boxes[question.number]
    else:
        raise NotInThisPicture(f"{question.place} must be from 0 to {len(boxes) - 1}, got {question.number}")
    return Target(index=chosen.index, anchor=chosen.anchor)


def _nearest(boxes: tuple[Box, ...], at: tuple[float, float], size: tuple[int, ...]) -> Box:
    """The box whose middle is nearest to a point, given as shares of the frame's width and height."""
    def away(b: Box) -> float:
        middle = (b.box[0] + b.box[2]) / 2 / size[1], (b.box[1] + b.box[3]) / 2 / size[0]
        return (middle[0] - at[0]) ** 2 + (middle[1] - at[1]) ** 2
    return min(boxes, key=away)


def _said(question: Question, look: Look) -> Target:
    """A word or the whole of a caption: the one that was said of this picture, or the one that was typed."""
    model = look.model
    if not isinstance(model, Captioner):
        raise BadInput(f"{model.info.title} says no words that could be asked about")
    versus = None if question.versus is None else model.word(question.versus)
    words = (model.caption_of(question.caption) if question.caption is not None
             else tuple(w.index for w in look.prediction.words))
    if not words:
        raise NotInThisPicture("nothing was said of this picture; type a caption: caption/text:A CAPTION")
    if question.place != "word":
        return Target(words=words)
    if question.number >= len(words):
        caption = " ".join(model.labels[i] for i in words)
        sentence = f"word must be from 0 to {len(words) - 1} in {caption!r}, got {question.number}"
        raise NotInThisPicture(sentence) if question.caption is None else BadInput(sentence)
    return Target(index=words[question.number], position=question.number, versus=versus, words=words)
