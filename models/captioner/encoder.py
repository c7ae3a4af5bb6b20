"""EfficientNetV2-B0 (Tan & Le 2021) up to its last map, under Keras' names and in torch.

Pictures come as RGB in [0, 1], maps leave as (pictures, channels, height, width).
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Repeats, stride, expansion, channels in and out, and whether blocks are depthwise.
STAGES = (
    (1, 1, 1, 32, 16, False),
    (2, 2, 4, 16, 32, False),
    (2, 2, 4, 32, 48, False),
    (3, 2, 4, 48, 96, True),
    (5, 1, 6, 96, 112, True),
    (8, 2, 6, 112, 192, True),
)
CHANNELS = 1280
SIDE = 224                                  # pixels of the square that the shipped weights learnt on
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean",
              "running_var": "moving_variance"}
"""Torch's names for what a batch norm holds, and Keras'."""

Arrays = Mapping[str, np.ndarray]
Net = TypeVar("Net", bound="EfficientNetV2B0")


class Same(nn.Conv2d):
    """A convolution with TensorFlow's padding, for sides that the stride divides."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1,
                 bias: bool = False):
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] == 2:
            before, both = (self.kernel_size[0] - 2) // 2, self.kernel_size[0] - 2
            x = F.pad(x, (before, both - before) * 2)
        return super().forward(x)


def norm(channels: int) -> nn.BatchNorm2d:
    """As Keras' EfficientNetV2 has it."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.05)


class Block(nn.Module):
    """One (fused) inverted bottleneck."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, deep: bool):
        super().__init__()
        hidden = inputs * expansion
        self.deep, self.expands = deep, expansion > 1
        self.skip = stride == 1 and inputs == outputs
        self.act = nn.SiLU()
        if self.expands:
            self.expand_conv = Same(inputs, hidden, 1 if deep else 3, 1 if deep else stride)
            self.expand_bn = norm(hidden)
        if deep:
            self.dwconv2 = Same(hidden, hidden, 3, stride, groups=hidden)
            self.bn = norm(hidden)
            self.se_reduce = nn.Conv2d(hidden, inputs // 4, 1)
            self.se_expand = nn.Conv2d(inputs // 4, hidden, 1)
        self.project_conv = Same(hidden, outputs, 1 if self.expands else 3, 1 if self.expands else stride)
        self.project_bn = norm(outputs)

    def hidden(self, x: Tensor) -> Tensor:
        """What the projection reads."""
        if self.expands:
            x = self.act(self.expand_bn(self.expand_conv(x)))
        if self.deep:
            x = self.act(self.bn(self.dwconv2(x)))
            squeezed = self.act(self.se_reduce(x.mean((2, 3), keepdim=True)))
            x = x * torch.sigmoid(self.se_expand(squeezed))
        return x

    def forward(self, x: Tensor) -> Tensor:
        y = self.project_bn(self.project_conv(self.hidden(x)))
        if not self.expands:
            y = self.act(y)
        return x + y if self.skip else y


class EfficientNetV2B0(nn.Module):
    """The net without its classifier."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.SiLU()
        self.stem_conv, self.stem_bn = Same(3, 32, 3, 2), norm(32)
        self.names: list[str] = []             # of the blocks, first to last
        for stage, (repeats, stride, expansion, inputs, outputs, deep) in enumerate(STAGES, 1):
            for i in range(repeats):
                self.names.append(f"block{stage}{chr(97 + i)}")
                self.add_module(self.names[-1], Block(outputs if i else inputs, outputs, 1 if i else stride,
                                                      expansion, deep))
        self.top_conv, self.top_bn = Same(STAGES[-1][4], CHANNELS, 1), norm(CHANNELS)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None], persistent=False)

    def block(self, name: str) -> Block:
        """One block by its name."""
        found = self.get_submodule(name)
        assert isinstance(found, Block)
        return found

    def stem(self, x: Tensor) -> Tensor:
        return self.act(self.stem_bn(self.stem_conv((x - self.mean) / self.deviation)))

    def top(self, x: Tensor) -> Tensor:
        return self.act(self.top_bn(self.top_conv(x)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for name in self.names:
            x = self.block(name)(x)
        return self.top(x)


def filled(net: Net, arrays: Arrays) -> Net:
    """The net with an encoder file's weights, {layer.weight: array} as Keras names and lays them out.

    An error names the one that does not fit.
    """
    with torch.no_grad():
        for path, module in net.named_modules():
            layer = path.replace(".", "_")
            if isinstance(module, nn.BatchNorm2d):
                for mine, theirs in BATCH_NORM.items():
                    _put(getattr(module, mine), arrays, f"{layer}.{theirs}", (0,))
            elif isinstance(module, nn.Conv2d):
                # A kernel is (out, in, h, w) here and (h, w, in, out) there; a depthwise one (h, w, out, 1).
                axes = (2, 3, 0, 1) if module.groups > 1 else (3, 2, 0, 1)
                _put(module.weight, arrays, f"{layer}.kernel", axes)
                if module.bias is not None:
                    _put(module.bias, arrays, f"{layer}.bias", (0,))
    return net.eval()


def _put(into: Tensor, arrays: Arrays, name: str, axes: tuple[int, ...]) -> None:
    if name not in arrays:
        raise ValueError(f"the encoder file has no {name}: expected EfficientNetV2-B0's Keras weights")
    value = torch.from_numpy(arrays[name].transpose(axes))
    if value.shape != into.shape:
        expected, got = tuple(into.shape), tuple(value.shape)
        raise ValueError(f"{name} must have shape {expected} in torch's order, got {got}")
    into.copy_(value)
