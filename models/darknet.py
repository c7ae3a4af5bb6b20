"""Darknet's weights file: a header, then per convolution its numbers as float32, in the order of the net."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.base import BadInput

HEADER = 20                 # bytes: three version numbers and a count of seen pictures
NEARLY_ZERO = 1e-6          # what darknet adds to a standard deviation, after the root


def read_convolutions(path: Path, shapes: list[tuple[int, int, int, bool]]) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias) of each (out, in, kernel, normalised) convolution, batch-norm folded into both."""
    numbers = np.fromfile(path, "<f4", offset=HEADER)
    wanted = sum(out * (into * kernel * kernel + (4 if normalised else 1))
                 for out, into, kernel, normalised in shapes)
    if len(numbers) != wanted:
        raise BadInput(f"{path.name} must hold {wanted} numbers after its header, got {len(numbers)}; "
                       "fetch it again")
    at = 0

    def take(count: int) -> np.ndarray:
        nonlocal at
        at += count
        return numbers[at - count:at].astype(np.float64)

    layers = []
    for out, into, kernel, normalised in shapes:
        bias = take(out)
        scale = np.ones(out)
        if normalised:
            gamma, mean, variance = take(out), take(out), take(out)
            scale = gamma / (np.sqrt(variance) + NEARLY_ZERO)
            bias = bias - mean * scale
        weight = take(out * into * kernel * kernel).reshape(out, into, kernel, kernel)
        layers.append((torch.from_numpy((weight * scale[:, None, None, None]).astype(np.float32)),
                       torch.from_numpy(bias.astype(np.float32))))
    return layers
