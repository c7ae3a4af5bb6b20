"""The captioner once more, in Keras and TensorFlow: what ours is compared with. Nothing here is shipped.

The encoder is keras.applications' own EfficientNetV2-B0, the decoder is put together from Keras' layers.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.captioner.bridge import build_encoder, keras, tf
from models.captioner.decoder import NEVER_SAID, START

Arrays = Mapping[str, np.ndarray]
Memory = tuple[Any, Any, Any]
"""Hidden, cell and what was looked at last, a row for each sentence."""


def encoder(arrays: Arrays) -> Any:
    """keras.applications' net with the weights of an encoder file."""
    net = build_encoder()
    for layer in net.layers:
        if layer.weights and not isinstance(layer, keras.layers.Normalization):
            names = [f"{layer.name}.{w.name}" for w in layer.weights]
            layer.set_weights([np.asarray(arrays[name], np.float32) for name in names])
    return net


class Decoder:
    """A decoder file's weights in Keras' layers."""

    def __init__(self, arrays: Arrays):
        self.w = {name: np.asarray(a, np.float32) for name, a in arrays.items()}
        words, word = self.w["words.table"].shape
        picture, units = self.w["picture.kernel"].shape[1], self.w["lstm.recurrent"].shape[0]
        attention = self.w["keys.kernel"].shape[1]
        self.silent = np.zeros(words, np.float32)
        self.silent[list(NEVER_SAID)] = -1e9
        self.cell = keras.layers.LSTMCell(units)
        self.cell.build((None, word + picture))
        self.cell.set_weights([self.w[f"lstm.{n}"] for n in ("kernel", "recurrent", "bias")])
        self.attention = keras.layers.AdditiveAttention(use_scale=True)
        self.attention.build([(None, 1, attention), (None, 49, picture), (None, 49, attention)])
        self.attention.set_weights([self.w["energy.kernel"][:, 0]])
        self.step = tf.function(self._step, reduce_retracing=True)

    def dense(self, x: Any, layer: str) -> Any:
        return x @ self.w[f"{layer}.kernel"] + self.w[f"{layer}.bias"]

    def look(self, maps: Any) -> tuple[Any, Memory]:
        """NxLxC to what attention reads, and the memory before the first word."""
        values = tf.nn.relu(self.dense(maps, "picture"))
        mean = tf.reduce_mean(values, 1)
        hidden, cell = tf.split(tf.tanh(self.dense(mean, "start")), 2, -1)
        return values, (hidden, cell, mean)

    def _step(self, values: Any, words: Any, memory: Memory) -> tuple[Any, Memory]:
        hidden, cell, seen = memory
        x = tf.concat([tf.gather(tf.constant(self.w["words.table"]), words), seen], -1)
        hidden, (_, cell) = self.cell(x, [hidden, cell])
        query = self.dense(hidden, "query")[:, None]
        seen = self.attention([query, values, values @ self.w["keys.kernel"]])[:, 0]
        out = tf.tanh(self.dense(tf.concat([hidden, seen], -1), "output"))
        logits = out @ self.w["words.table"].T + self.w["words.bias"] + self.silent
        return tf.nn.log_softmax(logits), (hidden, cell, seen)

    def follow(self, maps: Any, words: Sequence[int]) -> Any:
        """NxTxV: log-probabilities of every word at each place of a caption."""
        values, memory = self.look(maps)
        out = []
        for word in (START, *words[:-1]):
            log_p, memory = self._step(values, [word] * maps.shape[0], memory)
            out.append(log_p)
        return tf.stack(out, 1)

    def gradients(self, maps: np.ndarray, words: Sequence[int]) -> np.ndarray:
        """TxLxC: each word's log-probability differentiated at one picture's maps, one tape each."""
        at, each = tf.constant(maps), []
        for t, word in enumerate(words):
            with tf.GradientTape() as tape:
                tape.watch(at)
                said = self.follow(at, words[: t + 1])[0, t, word]
            each.append(tape.gradient(said, at).numpy()[0])
        return np.stack(each)
