"""A person's own captioner: a Keras file with two inputs, (features, words so far), and the next word out.

The features are a picture's last map averaged over its positions, from the ImageNet network that has as many
channels; the words so far are indices, padded in front with zeros to the length that the file asks for.
"""
from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from torch import Tensor

from models import captioner
from models.base import BadInput, ModelInfo, Progress
from models.captioner import bridge, network
from models.captioner.model import CaptionModel, Encoder, Speech, keras_encoder, look_once
from models.captioner.network import tf
from models.captioner.vocabulary import Vocabulary

ENCODERS = {1280: ("EfficientNetV2B0", 224), 1408: ("EfficientNetV2B2", 260), 1536: ("EfficientNetV2B3", 300),
            2048: ("InceptionV3", 299)}
"""The network of keras.applications that a feature vector of that length is taken from, and its side."""
LEAST = 1e-9                 # a probability of nothing is not asked for its logarithm


@dataclass(frozen=True)
class Layout:
    """What the two inputs and the output of the file are."""

    channels: int
    longest: int
    words: int
    features_first: bool


class Heard(NamedTuple):
    """The words so far, a row for each sentence, padded in front."""

    words: np.ndarray


def read_layout(net: Any, name: str, known: int) -> Layout:
    """The file's layout, or a sentence that says which shape does not fit."""
    shapes = [tuple(i.shape) for i in net.inputs]
    if len(shapes) != 2:
        raise BadInput(f"{name} must have two inputs, features and words so far, got {len(shapes)}: {shapes}")
    if any(len(s) != 2 or s[1] is None for s in shapes):
        raise BadInput(f"both inputs of {name} must be of shape (batch, known length), got {shapes}")
    integer = [str(i.dtype).startswith("int") for i in net.inputs]
    first = integer.index(False) == 0 if integer.count(True) == 1 else shapes[0][1] in ENCODERS
    channels, longest = (shapes[0][1], shapes[1][1]) if first else (shapes[1][1], shapes[0][1])
    if channels not in ENCODERS:
        raise BadInput(f"the features input of {name} has length {channels}; there is an encoder for "
                       f"{', '.join(f'{n} ({e})' for n, (e, _) in ENCODERS.items())}")
    outputs = [tuple(o.shape) for o in net.outputs]
    if len(outputs) != 1 or len(outputs[0]) != 2:
        raise BadInput(f"{name} must have one output of shape (batch, words), got {outputs}")
    if outputs[0][1] not in (known, known + 1):
        raise BadInput(f"{name} tells {outputs[0][1]} words apart, and the vocabulary has {known} lines; it "
                       "must have as many, or one fewer if the file counts its words from 1")
    return Layout(channels, longest, outputs[0][1], first)


class Speaker:
    """The file's network behind the interface of the captioner's decoder."""

    def __init__(self, net: Any, layout: Layout, vocabulary: Vocabulary):
        self.layout, self.vocabulary = layout, vocabulary
        apply = network.as_function(net)

        @tf.function(input_signature=[tf.TensorSpec((None, None, None, layout.channels), tf.float32),
                                      tf.TensorSpec((None, layout.longest), tf.int32)])
        def run(maps: Any, words: Any) -> Any:
            """NxTxV: every picture with every sentence."""
            bridge.TRACES["score"] += 1
            pooled, pictures, sentences = tf.reduce_mean(maps, (1, 2)), tf.shape(maps)[0], tf.shape(words)[0]
            told = tf.repeat(pooled, sentences, 0), tf.tile(words, (pictures, 1))
            ordered = told if layout.features_first else told[::-1]
            out = apply([tf.cast(t, i.dtype) for t, i in zip(ordered, net.inputs, strict=True)])
            log_p = tf.math.log(tf.maximum(tf.reshape(out, (pictures, sentences, layout.words)), LEAST))
            silent = np.zeros(layout.words, np.float32)
            silent[list(vocabulary.silent)] = -1e9
            return log_p + silent

        self._run = run

    def _heard(self, words: tuple[int, ...]) -> np.ndarray:
        """The TxL inputs that ask for each word of a caption in turn."""
        said = (self.vocabulary.start, *words[:-1])
        return np.stack([self._padded(said[: t + 1]) for t in range(len(words))])

    def _padded(self, said: tuple[int, ...]) -> np.ndarray:
        row = np.zeros(self.layout.longest, np.int32)
        kept = said[-self.layout.longest:]
        row[self.layout.longest - len(kept):] = kept
        return row

    def look(self, maps: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(maps)[None, None]

    def first(self, picture: np.ndarray) -> Heard:
        return Heard(np.zeros((1, self.layout.longest), np.int32))

    def pick(self, memory: Heard, rows: np.ndarray) -> Heard:
        return Heard(memory.words[rows])

    def step(self, picture: np.ndarray, words: np.ndarray, memory: Heard) -> tuple[np.ndarray, Heard]:
        heard = np.concatenate([memory.words[:, 1:], words[:, None].astype(np.int32)], 1)
        return self._run(picture, heard).numpy()[0], Heard(heard)

    def teacher_forced(self, picture: np.ndarray, words: tuple[int, ...]) -> np.ndarray:
        return self._run(picture, self._heard(words)).numpy()[0].copy()

    def channel_gradients(self, picture: np.ndarray, words: tuple[int, ...]) -> np.ndarray:
        """Every picture position counts alike: the gradient at the average, shared out among them."""
        with tf.GradientTape() as tape:
            each = tf.repeat(tf.convert_to_tensor(picture), len(words), 0)
            tape.watch(each)
            log_p = tf.linalg.diag_part(tf.transpose(self._run(each, self._heard(words)), (2, 0, 1)))
            said = tf.reduce_sum(tf.gather(tf.transpose(log_p), np.array(words), batch_dims=1))
        return tape.gradient(said, each).numpy().mean((1, 2))

    def score(self, features: Tensor, words: tuple[int, ...], asked: np.ndarray) -> Tensor:
        """bridge.Scorer: NxTxK log-probabilities."""
        def run(maps: Any, heard: Any, asked: Any) -> Any:
            return bridge.asked_of(self._run(maps, heard), asked)

        return bridge.through(run, features.permute(0, 2, 3, 1), self._heard(words), asked.astype(np.int32))


def _speech(net: Any, layout: Layout, vocabulary: Vocabulary) -> Speech:
    speaker = Speaker(net, layout, vocabulary)
    return Speech(speaker, speaker.score, max(1, len(network.layers_with_kernels(net))),
                  lambda count, seed: _speech(network.redrawn(net, count, seed), layout, vocabulary))


def _encoder(channels: int, progress: Progress) -> tuple[Encoder, str]:
    """ImageNet's official weights where they can be fetched; else, for 1280 channels, ours."""
    name, side = ENCODERS[channels]
    progress(f"{name}, ImageNet weights", 1, 3)
    try:
        net = network.build_encoder(name, weights="imagenet", side=side)
    except Exception as problem:       # Keras raises whatever its download met
        if channels != 1280:
            raise BadInput(f"features of length {channels} come from {name}, and its ImageNet weights "
                           f"could not be fetched: {problem}") from problem
        ours = network.read_arrays(captioner.WEIGHTS / "encoder.npz")
        net = network.folded(network.put_encoder(network.build_encoder(), ours))
        return keras_encoder(net), "features from our own EfficientNetV2-B0: no official weights in reach"
    if name == "InceptionV3":          # the one that does not normalise by itself
        pictures = keras.Input((side, side, 3))
        net = keras.Model(pictures, net(keras.layers.Rescaling(1 / 127.5, -1)(pictures)))
    return keras_encoder(net), f"features from {name} with ImageNet's official weights"


def load(info: ModelInfo, file: Path, vocabulary_file: Path, progress: Progress) -> CaptionModel:
    """The file and its vocabulary, one word a line; nothing in the file may bring code of its own."""
    try:
        net = keras.models.load_model(file, compile=False, safe_mode=True)
    except (ValueError, OSError, TypeError, zipfile.BadZipFile) as problem:
        raise BadInput(f"{file.name} could not be loaded as a Keras model: {str(problem).splitlines()[0]}"
                       ) from problem
    lines = vocabulary_file.read_text("utf-8").splitlines()
    layout = read_layout(net, file.name, len(lines))
    vocabulary = Vocabulary.of(["<pad>"] * (layout.words - len(lines)) + lines,
                               f"the vocabulary {vocabulary_file.name}")
    encoder, where = _encoder(layout.channels, progress)
    mine = CaptionModel(replace(info, note=where), vocabulary, encoder, _speech(net, layout, vocabulary),
                     ENCODERS[layout.channels][1])
    look_once(mine)
    return mine
