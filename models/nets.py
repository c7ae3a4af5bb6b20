"""What can be said of a torch net by looking at its layers."""
from __future__ import annotations

from torch import nn

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
