"""TensorFlow as one more torch function: the only file that holds tensors of both.

Only what a person brings and what the official weights come in needs it; it takes seconds to import.
"""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch._dynamo  # noqa: F401  (torch with its compiler comes before TensorFlow: after it, Triton crashes)
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.base import THREADS

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"
import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

TRACES: Counter[str] = Counter()
"""How often TensorFlow traced each function. It must not grow while live: tracing takes seconds."""

AT_ONCE = 16                 # pictures in one TensorFlow call: more is hardly faster and takes memory


def _settle_tensorflow() -> None:
    """Off the GPU, and no more threads than torch has; one op at a time is fastest on few cores."""
    try:
        tf.config.set_visible_devices([], "GPU")
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        pass  # somebody ran TensorFlow in this process before us: its settings can no longer be changed


_settle_tensorflow()


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
    apply = as_function(net)
    size = net.input_shape[1:3]

    @tf.function(input_signature=[tf.TensorSpec((None, *size, 3), tf.float32)], jit_compile=False)
    def run(x: Any) -> Any:          # XLA takes four to eight times as long for these convolutions on a CPU
        TRACES["encode"] += 1
        return apply(x * 255)

    def encode(x: Tensor) -> Tensor:
        maps = torch.cat([through(run, part) for part in x.permute(0, 2, 3, 1).split(AT_ONCE)])
        return maps.permute(0, 3, 1, 2)       # a view: the numbers stay where TensorFlow put them

    return encode


def build_encoder(architecture: str = "EfficientNetV2B0", weights: str | None = None,
                  side: int = 224) -> keras.Model:
    """RGB from 0 to 255, Nx224x224x3, to the last map, Nx7x7xC; EfficientNets normalise by themselves."""
    net = getattr(keras.applications, architecture)
    return net(include_top=False, weights=weights, input_shape=(side, side, 3))


def as_function(net: keras.Model) -> Callable[..., Any]:
    """The net in inference with constant weights: a tape then spends nothing on their gradients."""
    groups = (net.trainable_variables, net.non_trainable_variables)
    fixed = [[np.asarray(v) for v in group] for group in groups]

    def run(inputs: Any) -> Any:
        constants = [[tf.constant(v) for v in group] for group in fixed]
        return net.stateless_call(*constants, inputs, training=False)[0]

    return run


def layers_with_kernels(net: keras.Model) -> list[keras.layers.Layer]:
    """The convolutions and dense layers, first to last."""
    return [layer for layer in net.layers if getattr(layer, "kernel", None) is not None]


def redrawn(net: keras.Model, count: int, seed: int) -> keras.Model:
    """A copy of a net whose last `count` kernels are drawn anew and whose biases there are zero."""
    rng, out = np.random.default_rng(seed), keras.models.clone_model(net)
    out.set_weights(net.get_weights())
    for layer in layers_with_kernels(out)[-count:]:
        kernel, *biases = layer.get_weights()
        deep = isinstance(layer, keras.layers.DepthwiseConv2D)
        fan = int(np.prod(kernel.shape[:2] if deep else kernel.shape[:-1]))
        drawn = (rng.standard_normal(kernel.shape) * np.sqrt(2 / fan)).astype(np.float32)
        layer.set_weights([drawn, *(np.zeros_like(b) for b in biases)])
    return out
