"""What can be said of a torch net by looking at its layers."""
from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

OFFERS = frozenset({"gradient", "maps", "net", "redraw"})
"""What every model offers that is a torch net behind its last map."""


def activations(net: nn.Module) -> list[str]:
    """The names of the kinds of its activations; what only makes probabilities or attention is none."""
    return sorted({type(m).__name__ for m in net.modules() if _is_activation(m)})


def relu(net: nn.Module) -> frozenset[str]:
    """`relu`, where every activation is one and there is one."""
    return frozenset({"relu"} if activations(net) == ["ReLU"] else ())


def _is_activation(module: nn.Module) -> bool:
    kind = type(module)
    ours = kind.__module__ == "torch.nn.modules.activation" or "swish" in kind.__name__.lower()
    return ours and not isinstance(module, nn.Softmax | nn.LogSoftmax | nn.MultiheadAttention)


def channels_last(*layers: nn.Module) -> None:
    """Let convolutions keep a pixel's channels side by side: there and back takes a fifth less time."""
    for layer in layers:
        layer.to(memory_format=torch.channels_last)


def folded(net: nn.Module) -> nn.Module | None:
    """A copy whose batch norms are part of the convolutions listed before them; nothing, if it has none.

    What is not changed is shared, not copied. Whether they run in that order is for the caller to try.
    """
    twin = copy.deepcopy(net, {id(held): held for held in (*net.parameters(), *net.buffers())})
    found = [(parent, name, conv, after, norm) for parent in twin.modules()
             for (name, conv), (after, norm) in pairwise(parent.named_children())
             if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)]
    for parent, name, conv, after, norm in found:
        setattr(parent, name, fuse_conv_bn_eval(conv, norm))
        setattr(parent, after, nn.Identity())
    return twin if found else None
