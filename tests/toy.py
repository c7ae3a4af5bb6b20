"""A model whose every answer is known on paper: each class's score is a weighted sum of the pixels."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from explainers import Look, parse, resolve
from models.base import (
    BadInput,
    Canvas,
    Choice,
    Features,
    Model,
    ModelInfo,
    Prediction,
    Target,
    device,
    letterbox,
)


class Linear:
    """score(class) = sum(weights[class] * x); features are the pixels, the gradient is the weights."""

    offers = frozenset({"gradient", "maps", "redraw"})

    def __init__(self, size: int = 16, classes: int = 3, seed: int = 0,
                 prepare: Callable[[np.ndarray, int], Canvas] = letterbox):
        self.info = ModelInfo("linear", "classify", "Linear", True, 0.0, "none", "drawn from a seed")
        self.labels = {i: f"class {i}" for i in range(classes)}
        self._size, self._prepare = size, prepare
        draw = torch.Generator().manual_seed(seed)
        self.weights = torch.randn(classes, 3, size, size, generator=draw).to(device()) / size

    def prepare(self, frame: np.ndarray) -> Canvas:
        return self._prepare(frame, self._size)

    def encode(self, x: Tensor) -> Features:
        return Features((x * 1.0,))

    def logits_of(self, features: Features, target: Target) -> Tensor:
        return torch.einsum("nchw,kchw->nk", features.maps[0], self.weights)

    def predict(self, features: Features, canvas: Canvas, **settings: Any) -> Prediction:
        with torch.no_grad():
            probabilities = self.logits_of(features, Target()).softmax(1)[0].cpu()
        order = probabilities.argsort(descending=True).tolist()
        return Prediction("classify", probabilities=probabilities.numpy(), classes=tuple(
            Choice(i, self.labels[i], float(probabilities[i])) for i in order[:5]))

    def score(self, features: Features, target: Target) -> Tensor:
        logits = self.logits_of(features, target)
        if target.index is None or target.index not in self.labels:
            raise BadInput(f"class must be an index from 0 to {len(self.labels) - 1}, got {target.index}")
        chosen = logits[:, target.index]
        return chosen if target.versus is None else chosen - logits[:, target.versus]

    def probability(self, features: Features, target: Target) -> Tensor:
        if target.versus is not None:
            return self.score(features, target).sigmoid()
        return self.logits_of(features, target).softmax(1)[:, target.index]

    def randomised(self, share: float, seed: int) -> Linear:
        return Linear(self._size, len(self.labels), seed + 1, self._prepare)


class Sealed:
    """Any model as if it could only be run: no gradient, no map, no net, no weights to draw anew."""

    def __init__(self, model: Model):
        self._model = model
        self.info = replace(model.info, name=f"sealed-{model.info.name}")
        self.labels, self.offers = model.labels, model.offers & {"sides", "words"}

    def prepare(self, frame: np.ndarray) -> Canvas:
        return self._model.prepare(frame)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Features:
        return Features(rest=self._model.encode(x).tensors)

    def predict(self, features: Features, canvas: Canvas, **settings: Any) -> Prediction:
        return self._model.predict(Features(features.rest), canvas, **settings)

    @torch.no_grad()
    def score(self, features: Features, target: Target) -> Tensor:
        return self._model.score(Features(features.rest), target)

    @torch.no_grad()
    def logits_of(self, features: Features, target: Target) -> Tensor:
        return self._model.logits_of(Features(features.rest), target)

    @torch.no_grad()
    def probability(self, features: Features, target: Target) -> Tensor:
        return self._model.probability(Features(features.rest), target)

    def randomised(self, share: float, seed: int) -> Sealed:
        raise AssertionError("nobody may ask for this")


def asked(text: str | None, look: Look) -> Target:
    """The target that a text names in a picture."""
    return resolve(parse(text, look.model.info.task), look)
