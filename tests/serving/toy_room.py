"""Models whose answers are known on paper: red, green or blue is what a picture has most of."""
from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.base import (
    BadInput,
    Box,
    Canvas,
    Choice,
    Features,
    ModelInfo,
    Parameter,
    Prediction,
    Target,
    squeeze,
)
from models.store import StoreError

COLOURS = {0: "red", 1: "green", 2: "blue"}
SHARPNESS = Parameter("sharpness", 10.0, 1.0, 50.0)


def _info(name: str, title: str, task: str = "classify") -> ModelInfo:
    return ModelInfo(name, task, title, False, 0.0, "none", "this test", settings=(SHARPNESS,))


CATALOG = {i.name: i for i in (
    _info("toy", "Toy"), _info("toy-slow", "Slow toy"), _info("toy-broken", "Broken toy"),
    _info("toy-away", "Toy that is far away"), _info("toy-boxes", "Toy with boxes", "detect"))}
GATE = threading.Event()                       # toy-slow loads when it opens
LOADS: list[str] = []


class Toy:
    """Scores are mean colours; `toy-broken` fails on any picture that is mostly blue."""

    labels = COLOURS
    offers = frozenset({"gradient", "maps", "redraw"})

    def __init__(self, info: ModelInfo):
        self.info, self.weights = info, torch.ones(3)

    def prepare(self, frame: np.ndarray) -> Canvas:
        return squeeze(frame, 16)

    def encode(self, x: Tensor) -> Features:
        if self.info.name == "toy-broken" and int(x.mean((0, 2, 3)).argmax()) == 2:
            raise RuntimeError("blue cannot be borne")
        return Features((F.avg_pool2d(x, 4),))

    def predict(self, features: Features, canvas: Canvas, sharpness: float) -> Prediction:
        p = (features.maps[0].mean((2, 3))[0] * sharpness).softmax(0)
        order = p.argsort(descending=True).tolist()
        return Prediction("classify", classes=tuple(Choice(i, COLOURS[i], float(p[i])) for i in order))

    def score(self, features: Features, target: Target) -> Tensor:
        return self.logits_of(features, target)[:, target.index]

    def logits_of(self, features: Features, target: Target) -> Tensor:
        return features.maps[0].mean((2, 3)) * self.weights

    def probability(self, features: Features, target: Target) -> Tensor:
        return self.logits_of(features, target).softmax(1)[:, target.index]

    def randomised(self, share: float, seed: int) -> Toy:
        other = Toy(self.info)
        other.weights = torch.rand(3, generator=torch.Generator().manual_seed(seed))
        return other


class Halves(Toy):
    """A box in each half of the picture that is not dark; anchor 0 is on the left, 1 on the right."""

    def predict(self, features: Features, canvas: Canvas, sharpness: float) -> Prediction:
        height, width = canvas.frame_size
        light = self.logits_of(features, Target(0, anchor=0)), self.logits_of(features, Target(0, anchor=1))
        boxes = [Box(int(logits[0].argmax()), COLOURS[int(logits[0].argmax())], float(logits.max()),
                     (half * width / 2, 0, (half + 1) * width / 2, height), half)
                 for half, logits in enumerate(light) if float(logits.max()) > 0.3]
        return Prediction("detect", boxes=tuple(boxes))

    def probability(self, features: Features, target: Target) -> Tensor:
        return self.score(features, target)

    def logits_of(self, features: Features, target: Target) -> Tensor:
        half = features.maps[0].chunk(2, 3)[target.anchor or 0]
        return half.mean((2, 3)) * self.weights


def load(name: str, progress: Any) -> Toy:
    LOADS.append(name)
    if name == "toy-away":
        progress("far.weights", 10, 100)
        raise StoreError("far.weights cannot be fetched: nothing answers; connect and try again")
    if name == "toy-slow":
        progress("slow.weights", 3_000_000, 10_000_000)
        if not GATE.wait(10):
            raise BadInput("the gate stayed shut")
    torch.manual_seed(0)
    return (Halves if name == "toy-boxes" else Toy)(CATALOG[name])
