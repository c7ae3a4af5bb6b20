"""The trust card of one box: would the picture support another label just as well?"""
from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from explainers import faith
from explainers.base import Explanation, Look, method, steps
from models.base import SIDES, BadInput, Canvas, Features, Model, Prediction, Target

Corners = tuple[float, float, float, float]
USUAL = 95                  # of 100 random classes have no more evidence than the level a label is judged by
LEVEL = f"level of {USUAL} in 100 random classes"
AT_ONCE = 10                # random classes in one step, so that live pictures get their turn in between
CERTAIN = 1e-6              # what is left to 1 counts as at least this much: no evidence is without end
CLEAR = 2.0                 # times that level is a clear yes
VERDICTS = ("supported", "weakly supported", "not supported")


@method("Trust card", group="checks", tasks=("detect",), needs=("gradient", "maps"),
        shows="Whether the picture supports this label on this box, beside a rival label and random ones.",
        cannot="Not whether the label is right: it says what the model's evidence is worth on this frame.",
        map=("odam", "layer_cam"), steps=(25, 5, 100), randoms=(60, 10, 79))
def trust_card(look: Look, target: Target, map: str, steps: int, randoms: int) -> Iterator[Explanation]:
    """The label's map and its rival's on one scale, judged by those of random classes; IG and deletion."""
    if target.part != "class" or target.index is None:
        raise BadInput("a trust card is about a class of a box; say box:0 or box:0/class:NAME/versus:NAME")
    own, rival = replace(target, versus=None), replace(target, index=_rival(look, target), versus=None)
    drawn = faith.rivals(look, replace(target, versus=rival.index), randoms, seed=0)
    if not drawn:
        raise BadInput("a trust card compares a label with a rival and with random classes; of classes "
                       f"{look.model.info.title} has only {len(look.model.labels)}")
    box = box_of(look, target)
    e, against = _in_log_odds(look, own, map), _in_log_odds(look, rival, map)
    others: list[float] = []
    for other in drawn:
        others.append(_inside(_in_log_odds(look, replace(other, versus=None), map), box))
        if len(others) % AT_ONCE == 0:
            yield replace(e, progress=0.1 * len(others) / len(drawn), note="Maps of random classes first.")
    level = float(np.percentile(others, USUAL))
    e.maps = {f"rival {look.model.labels[_index(rival)]}": against.heat}
    e.numbers = {**_judged(look, own, e, box, level, ""),
                 **_judged(look, rival, against, box, level, "rival "), LEVEL: level}
    e.note = _sentence(look, own, rival, e.numbers, len(others))
    yield replace(e, progress=0.1)
    for integral in _steps(look, own, steps):
        yield replace(e, progress=0.1 + 0.4 * integral.progress)
    e.numbers = {**e.numbers, "completeness error": integral.numbers["completeness error"]}
    for curve in faith.curve_steps(look, e, own, steps=16):
        yield replace(e, progress=0.5 + 0.49 * curve.progress)
    e.numbers = {**e.numbers, "deletion score": curve.numbers["area deletion_blur"]}
    yield replace(e, curves=curve.curves, progress=1.0)


def _steps(look: Look, target: Target, count: int) -> Iterator[Explanation]:
    return steps(look, "integrated_gradients", target, {"steps": count})


def box_of(look: Look, target: Target) -> Corners:
    """The box of a candidate in frame pixels, kept or not."""
    for found in (*look.prediction.boxes, *look.prediction.candidates):
        if found.anchor == target.anchor:
            return found.box
    with torch.no_grad():
        sides = [float(look.model.score(look.features, replace(target, part=part, versus=None))[0])
                 for part in SIDES]
    left, top, right, bottom = look.canvas.to_frame(np.array([sides]))[0].tolist()
    return left, top, right, bottom


def _rival(look: Look, target: Target) -> int:
    """The class that was asked for, else the candidate's best one that is not the target's."""
    if target.versus is not None:
        return target.versus
    with torch.no_grad():
        ranked = look.model.logits_of(look.features, target)[0].argsort(descending=True).tolist()
    return int(next((i for i in ranked if i != target.index), ranked[0]))


class LogOdds:
    """A model whose score is log p/(1-p) of its own probability, whatever its own score is."""

    def __init__(self, model: Model):
        self._model = model
        self.info, self.labels, self.offers = model.info, model.labels, model.offers

    def prepare(self, frame: np.ndarray) -> Canvas:
        return self._model.prepare(frame)

    def encode(self, x: Tensor) -> Features:
        return self._model.encode(x)

    def predict(self, features: Features, canvas: Canvas, **settings: Any) -> Prediction:
        return self._model.predict(features, canvas, **settings)

    def score(self, features: Features, target: Target) -> Tensor:
        p = self.probability(features, target)
        return p.clamp(min=torch.finfo(p.dtype).tiny).log() - (1 - p + CERTAIN).log()

    def logits_of(self, features: Features, target: Target) -> Tensor:
        return self._model.logits_of(features, target)

    def probability(self, features: Features, target: Target) -> Tensor:
        return self._model.probability(features, target)

    def randomised(self, share: float, seed: int) -> LogOdds:
        return LogOdds(self._model.randomised(share, seed))


def _in_log_odds(look: Look, target: Target, map: str) -> Explanation:
    """The map of log p/(1-p): of log p alone, a class would seem to have less evidence the surer it is."""
    odds = copy.copy(look)
    odds.model = LogOdds(look.model)
    *_, e = steps(odds, map, target, {})
    with torch.no_grad():
        e.numbers = {"confidence": float(look.model.probability(look.features, target)[0])}
    return e


def _inside(e: Explanation, box: Corners) -> float:
    """The positive evidence within a box, summed."""
    total = float(np.maximum(e.heat, 0).sum())
    return faith.energy_in_box(e, box) * total


def _judged(look: Look, target: Target, e: Explanation, box: Corners, level: float,
            whose: str) -> dict[str, float | str]:
    inside, share = _inside(e, box), faith.energy_in_box(e, box)
    return {f"{whose}class": look.model.labels[_index(target)],
            f"{whose}verdict": verdict(inside, share, level),
            f"{whose}confidence": e.numbers["confidence"], f"{whose}evidence in box": inside,
            f"{whose}energy in box": share}


def verdict(inside: float, share: float, level: float) -> str:
    """Supported: clearly more evidence than nearly all random classes have, and most of it in the box."""
    if inside <= max(level, 1e-9):
        return VERDICTS[2]
    return VERDICTS[0] if inside > CLEAR * level and share >= 0.5 else VERDICTS[1]


def _sentence(look: Look, own: Target, rival: Target, numbers: dict[str, float | str], drawn: int) -> str:
    label, other = look.model.labels[_index(own)], look.model.labels[_index(rival)]
    times = float(numbers["evidence in box"]) / max(float(numbers[LEVEL]), 1e-9)
    much = "more than 99" if times > 99 else f"{times:.1f}"
    return (f"“{label}” is {numbers['verdict']} by the picture: its evidence in this box is {much} times "
            f"the level that {USUAL} in 100 random classes stay below on this frame ({drawn} drawn). "
            f"“{other}” on the same box is {numbers['rival verdict']}.")


def _index(target: Target) -> int:
    assert target.index is not None
    return target.index
