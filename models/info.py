"""What is known of models and of what they say, as plain data: nothing here or imported here knows torch."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class BadInput(ValueError):
    """Something a person asked for that cannot be done; its text is a sentence that can be shown as it is."""


@dataclass(frozen=True)
class Parameter:
    """One setting a person may turn: a number in [low, high], one of `choices`, or a yes/no."""

    name: str
    default: Any
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    @classmethod
    def declare(cls, name: str, spec: Any) -> Parameter:
        """From the short form: (default, low, high), ("first is default", "b", ...), or True/False."""
        if isinstance(spec, bool):
            return cls(name, spec)
        if all(isinstance(s, str) for s in spec):
            return cls(name, spec[0], choices=tuple(spec))
        return cls(name, spec[0], spec[1], spec[2])

    def check(self, value: Any) -> Any:
        """The value in the parameter's own type, or a sentence that names what is valid."""
        if self.choices:
            if value not in self.choices:
                raise BadInput(f"{self.name} must be one of {', '.join(self.choices)}, got {value!r}")
            return value
        if isinstance(self.default, bool):
            if str(value).lower() not in ("true", "false", "1", "0"):
                raise BadInput(f"{self.name} must be true or false, got {value!r}")
            return str(value).lower() in ("true", "1")
        low, high = self.low or 0, self.high or 0
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        whole = isinstance(self.default, int)
        if not low <= number <= high or (whole and number != int(number)):
            kind = "a whole number" if whole else "a number"
            raise BadInput(f"{self.name} must be {kind} from {low:g} to {high:g}, got {value!r}")
        return int(number) if whole else number

    def describe(self) -> dict[str, Any]:
        """For the page, which builds a slider, a menu or a box from it."""
        return {"name": self.name, "default": self.default, "low": self.low, "high": self.high,
                "choices": list(self.choices), "whole": isinstance(self.default, int)}


def checked(declared: tuple[Parameter, ...], given: dict[str, Any], whose: str) -> dict[str, Any]:
    """Every declared parameter with the given or its default value; unknown names are refused."""
    names = [p.name for p in declared]
    for name in given:
        if name not in names:
            raise BadInput(f"{whose} has no parameter {name!r}; it has {', '.join(names) or 'none'}")
    return {p.name: p.check(given.get(p.name, p.default)) for p in declared}


@dataclass(frozen=True)
class ModelInfo:
    """What the catalog says of a model before it is loaded."""

    name: str
    task: str                                  # classify, detect or caption
    title: str
    embedded: bool
    megabytes: float
    licence: str
    source: str
    settings: tuple[Parameter, ...] = ()       # what predict() takes besides features and canvas
    assets: tuple[str, ...] = ()               # what models.store must hold before it loads
    note: str = ""


SIDES = ("left", "top", "right", "bottom")


@dataclass(frozen=True)
class Target:
    """Which number to explain. Indices are keys, never names (ImageNet has two cranes)."""

    index: int | None = None                   # a class; None with part="objectness" or a whole caption
    versus: int | None = None                  # explain index minus versus: why this and not that
    anchor: int | None = None                  # a detector's own candidate, before suppression
    part: str = "class"                        # class, objectness, left, top, right, bottom
    position: int | None = None                # a word's place in the caption; None is the whole caption
    words: tuple[int, ...] | None = None       # the caption that is taken as given

    def rival(self, index: int) -> Target:
        """The same question about another class, or another word in the same position."""
        if self.words is not None and self.position is not None:
            words = (*self.words[: self.position], index, *self.words[self.position + 1:])
            return replace(self, words=words, index=index)
        return replace(self, index=index)


@dataclass(frozen=True)
class Choice:
    """One class and how probable the model finds it."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Box:
    """One detected object, in pixels of the frame, and the candidate it came from."""

    index: int
    label: str
    confidence: float
    box: tuple[float, float, float, float]
    anchor: int
    choices: tuple[Choice, ...] = ()           # the candidate's best classes, best first
    branch: str = ""                           # which head made it, where a model has two


@dataclass(frozen=True)
class Word:
    """One word of a caption, how probable it was there, and what nearly stood in its place."""

    index: int
    word: str
    probability: float
    others: tuple[Choice, ...] = ()
    habit: bool = False                        # said from language habit, not from this picture


@dataclass(frozen=True)
class Prediction:
    """What a model said of one frame. Only its own task's fields are filled."""

    task: str
    classes: tuple[Choice, ...] = ()           # the best five
    boxes: tuple[Box, ...] = ()                # best first
    candidates: tuple[Box, ...] = ()           # below the threshold, best first
    words: tuple[Word, ...] = ()
    caption: str = ""
    probabilities: np.ndarray | None = None    # of every class, by index

    def describe(self) -> dict[str, Any]:
        """The shape that `result` and `predict --json` carry."""
        def pick(choice: Choice) -> dict[str, Any]:
            return {"index": choice.index, "label": choice.label, "probability": round(choice.probability, 6)}

        def box(b: Box) -> dict[str, Any]:
            return {"index": b.index, "label": b.label, "confidence": round(b.confidence, 6),
                    "box": [round(v, 2) for v in b.box], "anchor": b.anchor,
                    **({"choices": [pick(c) for c in b.choices]} if b.choices else {}),
                    **({"branch": b.branch} if b.branch else {})}

        if self.task == "classify":
            return {"classes": [pick(c) for c in self.classes]}
        if self.task == "detect":
            return {"boxes": [box(b) for b in self.boxes],
                    **({"candidates": [box(b) for b in self.candidates]} if self.candidates else {})}
        return {"caption": self.caption, "words": [
            {"word": w.word, "index": w.index, "probability": round(w.probability, 6), "habit": w.habit,
             "others": [pick(c) for c in w.others]} for w in self.words]}


Progress = Callable[[str, int, int], None]
"""Called with what is being fetched or loaded, how much is done, and of how much (bytes)."""


def silent(what: str, done: int, total: int) -> None:
    """The progress of someone who does not want to know."""
