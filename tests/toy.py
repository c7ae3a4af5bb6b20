"""A model whose every answer is known on paper: each class's score is a weighted sum of the pixels."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.base import BadInput, Canvas, Choice, ModelInfo, Prediction, Target, device, letterbox


class Linear:
    """score(class) = sum(weights[class] * x); features are the pixels, the gradient is the weights."""

    def __init__(self, size: int = 16, classes: int = 3, seed: int = 0,
                 prepare: Callable[[np.ndarray, int], Canvas] = letterbox):
        self.info = ModelInfo("linear", "classify", "Linear", True, 0.0, "none", "drawn from a seed")
        self.labels = {i: f"class {i}" for i in range(classes)}
        self._size, self._prepare = size, prepare
        draw = torch.Generator().manual_seed(seed)
        self.weights = torch.randn(classes, 3, size, size, generator=draw).to(device()) / size

    def prepare(self, frame: np.ndarray) -> Canvas:
        return self._prepare(frame, self._size)

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x * 1.0,)

    def logits_of(self, features: tuple[Tensor, ...], target: Target) -> Tensor:
        return torch.einsum("nchw,kchw->nk", features[0], self.weights)

    def predict(self, features: tuple[Tensor, ...], canvas: Canvas, **settings: Any) -> Prediction:
        with torch.no_grad():
            probabilities = self.logits_of(features, Target()).softmax(1)[0].cpu()
        order = probabilities.argsort(descending=True).tolist()
        return Prediction("classify", probabilities=probabilities.numpy(), classes=tuple(
            Choice(i, self.labels[i], float(probabilities[i])) for i in order[:5]))

    def score(self, features: tuple[Tensor, ...], target: Target) -> Tensor:
        logits = self.logits_of(features, target)
        if target.index is None or target.index not in self.labels:
            raise BadInput(f"class must be an index from 0 to {len(self.labels) - 1}, got {target.index}")
        chosen = logits[:, target.index]
        return chosen if target.versus is None else chosen - logits[:, target.versus]

    def randomised(self, share: float, seed: int) -> Linear:
        return Linear(self._size, len(self.labels), seed + 1, self._prepare)
