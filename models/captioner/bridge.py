"""TensorFlow as one more torch function: the only file that holds tensors of both."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.captioner import network  # settles TensorFlow's devices and threads
from models.captioner.network import tf

TRACES: Counter[str] = Counter()
"""How often TensorFlow traced each function. It must not grow while live: tracing takes seconds."""

AT_ONCE = 16                 # pictures in one TensorFlow call: more is hardly faster and takes memory


class _Through(torch.autograd.Function):
    """run(x, *fixed) in TensorFlow; the way back asks the tape that watched the way there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, run: Callable[..., Any], fixed: tuple[Any, ...]) -> Tensor:
        ctx.seen, ctx.run, ctx.fixed, ctx.device = _to_tf(x), run, fixed, x.device
        ctx.tape, ctx.out = _watched(ctx)
        return _to_torch(ctx.out, x.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None]:
        # A tape that may be asked twice costs half as much again: it is asked once, and whoever comes
        # back a second time pays for another way there.
        tape, out = (ctx.tape, ctx.out) if ctx.tape is not None else _watched(ctx)
        ctx.tape = ctx.out = None
        back = tape.gradient(out, ctx.seen, _to_tf(gradient),
                             unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return _to_torch(back, ctx.device), None, None


def _watched(ctx: Any) -> tuple[Any, Any]:
    with tf.GradientTape() as tape:
        tape.watch(ctx.seen)
        out = ctx.run(ctx.seen, *ctx.fixed)
    return tape, out


def _to_tf(x: Tensor) -> Any:
    return tf.convert_to_tensor(x.detach().to("cpu", torch.float32).contiguous().numpy())


def _to_torch(x: Any, device: torch.device) -> Tensor:
    """A copy, since torch may write into what it is given, and the tape still needs the original."""
    return torch.tensor(x.numpy(), device=device)


def through(run: Callable[..., Any], x: Tensor, *fixed: np.ndarray) -> Tensor:
    """A TensorFlow function of one float tensor (and constants), differentiable in torch."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _Through.apply(x, run, fixed)
    return _to_torch(run(_to_tf(x), *fixed), x.device)


def encoder(net: Any) -> Callable[[Tensor], Tensor]:
    """A Keras net as a torch function: Nx3xhxw in [0,1] to NxCxhxw."""
    apply = network.as_function(net)
    size = net.input_shape[1:3]

    @tf.function(input_signature=[tf.TensorSpec((None, *size, 3), tf.float32)], jit_compile=False)
    def run(x: Any) -> Any:          # XLA takes four to eight times as long for these convolutions on a CPU
        TRACES["encode"] += 1
        return apply(x * 255)

    def encode(x: Tensor) -> Tensor:
        maps = torch.cat([through(run, part) for part in x.permute(0, 2, 3, 1).split(AT_ONCE)])
        return maps.permute(0, 3, 1, 2)       # a view: the numbers stay where TensorFlow put them

    return encode


Scorer = Callable[[Tensor, tuple[int, ...], np.ndarray], Tensor]
"""NxCxhxw features, the T words of a caption and TxK asked ones to NxTxK log-probabilities."""


def asked_of(log_p: Any, asked: Any) -> Any:
    """NxTxV and TxK to NxTxK."""
    return tf.gather(log_p, tf.repeat(asked[None], tf.shape(log_p)[0], 0), batch_dims=2)


def scorer(arrays: network.Weights, start: int) -> Scorer:
    """The decoder's log-probabilities by teacher forcing, differentiable in the features."""
    integers = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((None, None), tf.int32)
    channels = arrays["picture.kernel"].shape[0]

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, channels), tf.float32), *integers])
    def run(maps: Any, words: Any, asked: Any) -> Any:
        TRACES["score"] += 1
        w = {name: tf.constant(value) for name, value in arrays.items()}
        return asked_of(network.teacher_forced(w, network.look_at(w, maps), words), asked)

    def score(features: Tensor, words: tuple[int, ...], asked: np.ndarray) -> Tensor:
        fed = np.array([start, *words[:-1]], np.int32)
        return through(run, features.permute(0, 2, 3, 1), fed, asked.astype(np.int32))

    return score
