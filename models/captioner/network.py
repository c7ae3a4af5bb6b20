"""The captioner's two nets in Keras and TensorFlow: how they are built, and how their weights are put in.

The decoder is a handful of equations over a dict of named arrays (numpy arrays, tensors or variables alike):

    V = relu(M W + b)                     M: the 49 positions of the encoder's last map
    [h0, c0] = tanh(mean(V) W + b),  z0 = mean(V)
    (h, c) = LSTM([word, z], (h, c))      z: what was looked at for the word before
    z = sum_i softmax_i(tanh(V_i W + h W + b) e) V_i
    log p = log softmax(tanh([h, z] W + b) table^T + b)        the words' own table, turned round
"""
from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch._dynamo  # noqa: F401  (torch with its compiler comes before TensorFlow: after it, Triton crashes)

from models.base import THREADS

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"
import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

SIDE = 224                                  # pixels of the square that the encoder sees
CELLS = 49                                  # positions of its last map
SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")
PAD, START, END, UNKNOWN = range(4)
NEVER_SAID = (PAD, START, UNKNOWN)
SHAPES = {"picture": 256, "words": 200, "lstm": 288, "attention": 128}


def _settle_tensorflow() -> None:
    """Off the GPU, and no more threads than torch has; one op at a time is fastest on few cores."""
    try:
        tf.config.set_visible_devices([], "GPU")
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        pass  # somebody ran TensorFlow in this process before us: its settings can no longer be changed


_settle_tensorflow()


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The named arrays of an .npz as float32; nothing in it is ever unpickled."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name].astype(np.float32) for name in file.files}


def build_encoder(architecture: str = "EfficientNetV2B0", weights: str | None = None,
                  side: int = SIDE) -> keras.Model:
    """RGB from 0 to 255, Nx224x224x3, to the last map, Nx7x7xC; EfficientNets normalise by themselves."""
    net = getattr(keras.applications, architecture)
    return net(include_top=False, weights=weights, input_shape=(side, side, 3))


def encoder_arrays(net: keras.Model) -> dict[str, np.ndarray]:
    """A Keras net's weights as {layer.weight: array}, what encoder.npz holds."""
    return {f"{layer.name}.{w.name}": np.asarray(w) for layer in net.layers for w in layer.weights
            if not isinstance(layer, keras.layers.Normalization)}


def put_encoder(net: keras.Model, arrays: Mapping[str, np.ndarray]) -> keras.Model:
    """The arrays of encoder.npz into a net of build_encoder; an error names the one that does not fit."""
    for layer in net.layers:
        if layer.weights and not isinstance(layer, keras.layers.Normalization):
            names = [f"{layer.name}.{w.name}" for w in layer.weights]
            for name, w in zip(names, layer.weights, strict=True):
                if name not in arrays or tuple(arrays[name].shape) != tuple(w.shape):
                    found = arrays[name].shape if name in arrays else "nothing"
                    raise ValueError(f"the encoder needs {name} of shape {tuple(w.shape)}, got {found}")
            layer.set_weights([np.asarray(arrays[name], np.float32) for name in names])
    return net


def folded(net: keras.Model) -> keras.Model:
    """The same function without batch norms: in inference each is a scale and a shift of its convolution."""
    convolutions = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    skipped = (keras.layers.BatchNormalization, keras.layers.Dropout)

    def bare(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, skipped):
            return keras.layers.Identity(name=layer.name)
        biased = {"use_bias": True} if isinstance(layer, convolutions) else {}
        return type(layer).from_config({**layer.get_config(), **biased})

    def call(layer: keras.layers.Layer, *inputs: Any, **options: Any) -> Any:
        return inputs[0] if isinstance(layer, keras.layers.Identity) else layer(*inputs, **options)

    out = keras.models.clone_model(net, clone_function=bare, call_function=call)
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            before = layer.input._keras_history.operation
            gamma, beta, mean, variance = layer.get_weights()
            scale = gamma / np.sqrt(variance + layer.epsilon)
            kernel = before.get_weights()[0]
            deep = isinstance(before, keras.layers.DepthwiseConv2D)
            out.get_layer(before.name).set_weights(
                [kernel * (scale[:, None] if deep else scale), beta - mean * scale])
        elif layer.weights and not (isinstance(layer, convolutions) and not layer.use_bias):
            out.get_layer(layer.name).set_weights(layer.get_weights())
    return out


def as_function(net: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """The net in inference with constant weights: a tape then spends nothing on their gradients."""
    groups = (net.trainable_variables, net.non_trainable_variables)
    fixed = [[np.asarray(v) for v in group] for group in groups]

    def run(pictures: tf.Tensor) -> tf.Tensor:
        constants = [[tf.constant(v) for v in group] for group in fixed]
        return net.stateless_call(*constants, pictures, training=False)[0]

    return run


Weights = Mapping[str, Any]


class Memory(NamedTuple):
    """What the decoder remembers between words: LSTM state and what it looked at last, each Nx..."""

    hidden: tf.Tensor
    cell: tf.Tensor
    seen: tf.Tensor


def decoder_shapes(vocabulary: int, channels: int = 1280) -> dict[str, tuple[int, ...]]:
    """Every decoder array's name and shape."""
    p, e, u, a = SHAPES.values()
    return {"picture.kernel": (channels, p), "picture.bias": (p,),
            "start.kernel": (p, 2 * u), "start.bias": (2 * u,), "words.table": (vocabulary, e),
            "lstm.kernel": (e + p, 4 * u), "lstm.recurrent": (u, 4 * u), "lstm.bias": (4 * u,),
            "keys.kernel": (p, a), "query.kernel": (u, a), "query.bias": (a,), "energy.kernel": (a, 1),
            "output.kernel": (u + p, e), "output.bias": (e,), "words.bias": (vocabulary,)}


def check_decoder(arrays: Weights, vocabulary: int) -> None:
    """decoder.npz against the equations and the vocabulary; the error names what does not fit."""
    channels = arrays["picture.kernel"].shape[0] if "picture.kernel" in arrays else 0
    for name, shape in decoder_shapes(vocabulary, channels).items():
        found = tuple(arrays[name].shape) if name in arrays else "nothing"
        if found != shape:
            raise ValueError(f"the decoder needs {name} of shape {shape}, got {found}")


DECODER_LAYERS = ("picture", "start", "lstm", "keys", "query", "energy", "output", "words")


def _draw(rng: np.random.Generator, shape: tuple[int, ...], fan: int) -> np.ndarray:
    return (rng.standard_normal(shape) * np.sqrt(2 / fan)).astype(np.float32)


def redrawn_decoder(arrays: Weights, count: int, seed: int) -> dict[str, np.ndarray]:
    """The arrays with the last `count` layers drawn anew and their biases zero."""
    rng, out = np.random.default_rng(seed), dict(arrays)
    for layer in DECODER_LAYERS[-count:]:
        for name in [n for n in arrays if n.startswith(layer + ".")]:
            shape = arrays[name].shape
            fan = shape[1 if name == "words.table" else 0]
            out[name] = np.zeros(shape, np.float32) if len(shape) == 1 else _draw(rng, shape, fan)
    return out


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
        layer.set_weights([_draw(rng, kernel.shape, fan), *(np.zeros_like(b) for b in biases)])
    return out


def look_at(w: Weights, maps: tf.Tensor) -> tf.Tensor:
    """Nx7x7xC (or Nx49xC) maps to the Nx49xP picture that the decoder reads."""
    rows = tf.reshape(maps, (tf.shape(maps)[0], -1, w["picture.kernel"].shape[0]))
    return tf.nn.relu(rows @ w["picture.kernel"] + w["picture.bias"])


def begin(w: Weights, picture: tf.Tensor) -> tuple[tf.Tensor, Memory]:
    """The picture's keys for attention, and the memory before the first word."""
    mean = tf.reduce_mean(picture, 1)
    hidden, cell = tf.split(tf.tanh(mean @ w["start.kernel"] + w["start.bias"]), 2, -1)
    return picture @ w["keys.kernel"], Memory(hidden, cell, mean)


def advance(w: Weights, picture: tf.Tensor, keys: tf.Tensor, memory: Memory, word: tf.Tensor) -> Memory:
    """One word read: `word` is its gate input, words_in(...), Nx4U."""
    size = w["words.table"].shape[1]
    gates = word + memory.seen @ w["lstm.kernel"][size:] + memory.hidden @ w["lstm.recurrent"]
    i, f, g, o = tf.split(gates, 4, -1)
    cell = tf.sigmoid(f) * memory.cell + tf.sigmoid(i) * tf.tanh(g)
    hidden = tf.sigmoid(o) * tf.tanh(cell)
    query = hidden @ w["query.kernel"] + w["query.bias"]
    energy = tf.squeeze(tf.tanh(keys + query[:, None]) @ w["energy.kernel"], -1)
    seen = tf.squeeze(tf.nn.softmax(energy)[:, None] @ picture, 1)
    return Memory(hidden, cell, seen)


def words_in(w: Weights, words: tf.Tensor) -> tf.Tensor:
    """Word indices of any shape to their part of the LSTM's gates."""
    size = w["words.table"].shape[1]
    table = tf.convert_to_tensor(w["words.table"])
    return tf.tensordot(tf.gather(table, words), w["lstm.kernel"][:size], 1) + w["lstm.bias"]


def words_out(w: Weights, hidden: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
    """Log-probabilities of every next word, ...xN; what is never said has none to speak of."""
    out = tf.tanh(tf.tensordot(tf.concat([hidden, seen], -1), w["output.kernel"], 1) + w["output.bias"])
    logits = tf.tensordot(out, tf.transpose(w["words.table"]), 1) + w["words.bias"]
    silent = np.zeros(w["words.bias"].shape[0], np.float32)
    silent[list(NEVER_SAID)] = -1e9
    return tf.nn.log_softmax(logits + silent)


def next_words(w: Weights, picture: tf.Tensor, keys: tf.Tensor, memory: Memory,
               words: tf.Tensor) -> tuple[tf.Tensor, Memory]:
    """One step of decoding: the last words (N,) to log-probabilities NxV of the next, and the new memory."""
    memory = advance(w, picture, keys, memory, words_in(w, words))
    return words_out(w, memory.hidden, memory.seen), memory


def teacher_forced(w: Weights, picture: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
    """NxTxV log-probabilities of the word after each of `words` (NxT, or (T,) for all; <start> first)."""
    keys, memory = begin(w, picture)
    rows = tf.shape(picture)[0]
    if words.shape.rank == 1:
        gates = tf.repeat(words_in(w, words)[:, None], rows, 1)
    else:
        gates = words_in(w, tf.transpose(words))
    states = tf.scan(lambda m, word: advance(w, picture, keys, m, word), gates, memory)
    return tf.transpose(words_out(w, states.hidden, states.seen), (1, 0, 2))
