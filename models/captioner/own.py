"""A person's own captioner: a Keras file with two inputs, (features, words so far), and the next word out.

The features are a picture's last map averaged over its positions, from the ImageNet network that has as many
channels; the words so far are indices, padded in front with zeros to the length that the file asks for.
"""
from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models import captioner
from models.base import BadInput, ModelInfo, Progress, Target
from models.captioner import bridge, model
from models.captioner.bridge import keras, tf
from models.captioner.model import CaptionModel, Sight
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


class Pooled(NamedTuple):
    """What the file's network is told: each picture's map averaged over its positions, and how many."""

    features: Tensor
    places: Tensor


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
    """The file's network as a captioner's second half. Its memory is the words so far, NxBxL."""

    def __init__(self, net: Any, layout: Layout, vocabulary: Vocabulary):
        self.net, self.layout, self.vocabulary = net, layout, vocabulary
        self.layers = max(1, len(bridge.layers_with_kernels(net)))
        apply = bridge.as_function(net)

        @tf.function(input_signature=[tf.TensorSpec((None, layout.channels), tf.float32),
                                      tf.TensorSpec((None, None, layout.longest), tf.int32)])
        def run(pooled: Any, words: Any) -> Any:
            """NxBxV: every picture with the sentences of its own."""
            bridge.TRACES["score"] += 1
            pictures, sentences = tf.shape(words)[0], tf.shape(words)[1]
            told = tf.repeat(pooled, sentences, 0), tf.reshape(words, (-1, layout.longest))
            ordered = told if layout.features_first else told[::-1]
            out = apply([tf.cast(t, i.dtype) for t, i in zip(ordered, net.inputs, strict=True)])
            log_p = tf.math.log(tf.maximum(tf.reshape(out, (pictures, sentences, layout.words)), LEAST))
            silent = np.zeros(layout.words, np.float32)
            silent[list(vocabulary.silent)] = -1e9
            return log_p + silent

        self._run = run

    def _heard(self, words: Sequence[int]) -> Tensor:
        """The TxL inputs that ask for each word of a caption in turn."""
        said, longest = (self.vocabulary.start, *words[:-1]), self.layout.longest
        heard = torch.zeros(len(said), longest, dtype=torch.int32)
        for t in range(len(said)):
            kept = said[: t + 1][-longest:]
            heard[t, longest - len(kept):] = torch.tensor(kept)
        return heard

    def look(self, maps: Tensor) -> Pooled:
        return Pooled(maps.mean(1), torch.full((len(maps),), maps.shape[1]))

    def first(self, picture: Pooled) -> tuple[Tensor]:
        return (torch.zeros(len(picture.features), 1, self.layout.longest, dtype=torch.int32),)

    def step(self, picture: Pooled, words: Tensor, memory: Any) -> tuple[Tensor, tuple[Tensor]]:
        heard = torch.cat([memory[0][..., 1:], words[..., None].to(torch.int32)], 2)
        return bridge.through(self._run, picture.features, heard.numpy()), (heard,)

    def follow(self, picture: Pooled, words: Sequence[int]) -> Tensor:
        heard = self._heard(words).expand(len(picture.features), -1, -1)
        return bridge.through(self._run, picture.features, heard.numpy())

    def channel_gradients(self, picture: Pooled, words: Sequence[int]) -> Tensor:
        """Every position counts alike; with a copy of the picture for each word one way back does for all."""
        with torch.enable_grad():
            each = picture.features.detach().repeat(len(words), 1).requires_grad_()
            log_p = bridge.through(self._run, each, self._heard(words)[:, None].numpy())[:, 0]
            said = log_p.gather(1, torch.tensor(words)[:, None]).sum()
            return torch.autograd.grad(said, each)[0] / picture.places

    def redrawn(self, count: int, seed: int) -> Speaker:
        return Speaker(bridge.redrawn(self.net, count, seed), self.layout, self.vocabulary)


def keras_sight(net: Any) -> Sight:
    """A Keras net behind the bridge."""
    return Sight(bridge.encoder(net), len(bridge.layers_with_kernels(net)),
                 lambda count, seed: keras_sight(bridge.redrawn(net, count, seed)))


def _sight(channels: int, progress: Progress) -> tuple[Sight, str]:
    """ImageNet's official weights where they can be fetched; else, for 1280 channels, ours."""
    name, side = ENCODERS[channels]
    progress(f"{name}, ImageNet weights", 1, 3)
    try:
        net = bridge.build_encoder(name, weights="imagenet", side=side)
    except Exception as problem:       # Keras raises whatever its download met
        if channels != 1280:
            raise BadInput(f"features of length {channels} come from {name}, and its ImageNet weights "
                           f"could not be fetched: {problem}") from problem
        return (model.sight(model.efficientnetv2(captioner.WEIGHTS)),
                "features from our own EfficientNetV2-B0: no official weights in reach")
    if name == "InceptionV3":          # the one that does not normalise by itself
        pictures = keras.Input((side, side, 3))
        net = keras.Model(pictures, net(keras.layers.Rescaling(1 / 127.5, -1)(pictures)))
    return keras_sight(net), f"features from {name} with ImageNet's official weights"


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
    sight, where = _sight(layout.channels, progress)
    mine = CaptionModel(replace(info, note=where), vocabulary, sight, Speaker(net, layout, vocabulary),
                        ENCODERS[layout.channels][1])
    look_once(mine)
    return mine


def look_once(mine: CaptionModel) -> None:
    """Trace the way there and back now; else whoever looks first waits for it, and the camera too."""
    canvas = mine.prepare(np.full((8, 8, 3), 128, np.uint8))
    x = canvas.x.requires_grad_()
    features = mine.encode(x)
    words = tuple(w.index for w in mine.predict(features.each(Tensor.detach), canvas).words)
    mine.score(features, Target(words=words)).sum().backward()
