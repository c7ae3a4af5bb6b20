"""The captioner as a model: a caption, and the score of every word."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from models import classifier
from models.base import (
    BadInput,
    Canvas,
    Choice,
    Features,
    ModelInfo,
    Prediction,
    Progress,
    Target,
    Word,
    device,
    squeeze,
)
from models.captioner import bridge, network, plain
from models.captioner.decode import Sentence, beam_search
from models.captioner.vocabulary import Vocabulary

HABIT = 0.05
"""A word whose log-probability falls by less than this (nats) without the picture is said from habit.
On 80 dev photographs it marks 30 % of the words: 95 % of "of", 85 % of "the", 82 % of "people" (as in "a
group of people"), but no "dog", "man", "woman" or "boy"; at 0.1 it would mark a quarter of "dog"."""
COLOURS = 8
"""Levels of each channel of the mean colour: the empty picture of a scene is then looked at once."""
RUNNERS_UP = 4


@dataclass(frozen=True)
class Encoder:
    """Pixels to the last map, how many layers that takes, and itself with the last few drawn anew."""

    run: Callable[[Tensor], Tensor]
    layers: int
    redrawn: Callable[[int, int], Encoder]


class Decoder(Protocol):
    """Words from one picture, in numpy: plain.Decoder, or a user's own."""

    def look(self, maps: np.ndarray) -> Any: ...
    def first(self, picture: Any) -> Any: ...
    def step(self, picture: Any, words: np.ndarray, memory: Any) -> tuple[np.ndarray, Any]: ...
    def pick(self, memory: Any, rows: np.ndarray) -> Any: ...
    def teacher_forced(self, picture: Any, words: tuple[int, ...]) -> np.ndarray: ...
    def channel_gradients(self, picture: Any, words: tuple[int, ...]) -> np.ndarray: ...


@dataclass(frozen=True)
class Speech:
    """The second half of a captioner: decoder for captions, scorer for gradients, and its layers redrawn."""

    decoder: Decoder
    scorer: bridge.Scorer
    layers: int
    redrawn: Callable[[int, int], Speech]


class CaptionModel:
    """An encoder and what speaks about its map."""

    offers = frozenset({"gradient", "maps", "words", "redraw"})

    def __init__(self, info: ModelInfo, vocabulary: Vocabulary, encoder: Encoder, speech: Speech,
                 side: int = network.SIDE):
        self.info, self.vocabulary = info, vocabulary
        self.labels = dict(enumerate(vocabulary.words))
        self._encoder, self._speech, self._side = encoder, speech, side
        self._empty = lru_cache(maxsize=64)(self._look_at_colour)
        self._seen: tuple[Tensor, int, Any] | None = None

    def prepare(self, frame: np.ndarray) -> Canvas:
        return squeeze(frame, self._side)

    def encode(self, x: Tensor) -> Features:
        return Features((self._encoder.run(x),))

    def predict(self, features: Features, canvas: Canvas, **settings: Any) -> Prediction:
        beam, longest = settings.get("beam", 3), settings.get("longest", 20)
        return self.read(features, canvas, self.sentences(features, beam, longest)[0].words)

    def sentences(self, features: Features, beam: int, longest: int = 20) -> list[Sentence]:
        """What the beam search finds in one picture, best first."""
        decoder = self._speech.decoder
        with plain.one_thread():
            picture = self._picture(features)
            return beam_search(lambda words, memory: decoder.step(picture, words, memory), decoder.pick,
                               decoder.first(picture), start=self.vocabulary.start, end=self.vocabulary.end,
                               width=beam, longest=longest)

    def read(self, features: Features, canvas: Canvas, words: tuple[int, ...]) -> Prediction:
        """A caption taken as given: each word's probability, its runners-up, and whether it is habit."""
        decoder, shown = self._speech.decoder, []
        with plain.one_thread():
            without = decoder.teacher_forced(self._empty(_colour(canvas.x)), words)
            log_p = decoder.teacher_forced(self._picture(features), words)
        log_p[:, self.vocabulary.end] = -np.inf          # it never stands in a word's place on the page
        for t, index in enumerate(words):
            near = np.argsort(-log_p[t])[: RUNNERS_UP + 1]
            others = tuple(Choice(int(i), self.labels[int(i)], float(np.exp(log_p[t, i])))
                           for i in near if i != index)
            habit = bool(log_p[t, index] - without[t, index] < HABIT)
            shown.append(Word(index, self.labels[index], float(np.exp(log_p[t, index])),
                              others[:RUNNERS_UP], habit))
        return Prediction("caption", words=tuple(shown), caption=self.vocabulary.say(words))

    def caption_of(self, text: str) -> tuple[int, ...]:
        return self.vocabulary.read(text)

    def word(self, text: str) -> int:
        return self.vocabulary.find(text)

    def _picture(self, features: Features) -> Any:
        """What the decoder sees of these features; a caption, its words and their maps ask in turn."""
        maps = features.maps[0]
        if self._seen is None or self._seen[0] is not maps or self._seen[1] != maps._version:
            self._seen = maps, maps._version, self._speech.decoder.look(_rows(features))
        return self._seen[2]

    def _look_at_colour(self, colour: tuple[int, ...]) -> Any:
        """What the decoder sees of a canvas of one colour: the picture replaced by its mean."""
        x = torch.tensor(colour, device=device()).float().div(COLOURS).view(1, 3, 1, 1)
        with torch.no_grad():
            return self._speech.decoder.look(_rows(self.encode(x.expand(1, 3, self._side, self._side))))

    def score(self, features: Features, target: Target) -> Tensor:
        """log p(word | words before, picture): one word (minus a rival), or the sum over all."""
        words, at = self._given(target), target.position
        if at is None:
            asked = np.array(words)[:, None]
            return self._speech.scorer(features.maps[0], words, asked)[..., 0].sum(1)
        words = words[: at + 1]
        pair = (words[at],) if target.versus is None else (words[at], target.versus)
        log_p = self._speech.scorer(features.maps[0], words, np.tile(pair, (at + 1, 1)))[:, at]
        return log_p[:, 0] if target.versus is None else log_p[:, 0] - log_p[:, 1]

    def logits_of(self, features: Features, target: Target) -> Tensor:
        """Every word's number in one place of the caption: log-probabilities, shifted to a mean of zero."""
        words, at = self._given(target), target.position
        if at is None:
            raise BadInput("a whole caption has no classes to compare; say which word, as in word:1")
        asked = np.tile(np.arange(len(self.labels)), (at + 1, 1))
        log_p = self._speech.scorer(features.maps[0], words[: at + 1], asked)[:, at]
        return log_p - log_p.mean(1, keepdim=True)

    def probability(self, features: Features, target: Target) -> Tensor:
        score = self.score(features, target)
        if target.position is None:
            return (score / len(self._given(target))).exp()
        return score.exp() if target.versus is None else score.sigmoid()

    def channel_gradients(self, features: Features, target: Target) -> Tensor:
        """TxC: every word's d log p / d features averaged over positions, as Grad-CAM weighs channels."""
        decoder = self._speech.decoder
        with plain.one_thread():
            weights = decoder.channel_gradients(self._picture(features), self._given(target))
        return torch.from_numpy(np.asarray(weights, np.float32)).to(features.maps[0].device)

    def _given(self, target: Target) -> tuple[int, ...]:
        """The target's caption, checked."""
        words = target.words
        if not words:
            raise BadInput("a captioner explains a caption or a word of one; the target gives none")
        for index in (*words, *(() if target.versus is None else (target.versus,))):
            if index not in self.labels:
                raise BadInput(f"word must be an index from 0 to {len(self.labels) - 1}, got {index}")
        if target.position is not None and not 0 <= target.position < len(words):
            raise BadInput(f"word must be from 0 to {len(words) - 1} in {self.vocabulary.say(words)!r}, "
                           f"got {target.position}")
        return words

    def randomised(self, share: float, seed: int) -> CaptionModel:
        """A copy whose last `share` of layers is drawn anew: first what says words, then the encoder."""
        encoder, speech = self._encoder, self._speech
        count = max(1, round(share * (encoder.layers + speech.layers)))
        if count > speech.layers:
            encoder = encoder.redrawn(count - speech.layers, seed)
        return CaptionModel(self.info, self.vocabulary, encoder,
                            speech.redrawn(min(count, speech.layers), seed), self._side)


def _rows(features: Features) -> np.ndarray:
    """1xCxhxw to (h*w)xC."""
    return features.maps[0][0].detach().permute(1, 2, 0).flatten(0, 1).cpu().numpy()


def _colour(x: Tensor) -> tuple[int, ...]:
    return tuple(int(v) for v in x.detach()[0].mean((1, 2)).mul(COLOURS).round().tolist())


def keras_encoder(net: Any) -> Encoder:
    """A Keras net behind the bridge."""
    return Encoder(bridge.encoder(net), len(network.layers_with_kernels(net)),
                   lambda count, seed: keras_encoder(network.redrawn(net, count, seed)))


def lite0_encoder(net: classifier.Classifier) -> Encoder:
    """EfficientNet-Lite0 as the classifier has it; its last layer, the classes, is not used."""
    layers = sum(isinstance(m, torch.nn.Conv2d | torch.nn.Linear) for m in net.net.modules())
    return Encoder(lambda x: net.encode(x).maps[0], layers - 1,
                   lambda count, seed: lite0_encoder(net.randomised((count + 1) / layers, seed)))


def attention_speech(arrays: dict[str, np.ndarray], vocabulary: Vocabulary) -> Speech:
    """The decoder of network.py, twice: in numpy to speak, in TensorFlow to be explained."""
    def redrawn(count: int, seed: int) -> Speech:
        return attention_speech(network.redrawn_decoder(arrays, count, seed), vocabulary)

    return Speech(plain.Decoder(arrays, vocabulary), bridge.scorer(arrays, vocabulary.start),
                  len(network.DECODER_LAYERS), redrawn)


def load(info: ModelInfo, folder: Path, progress: Progress) -> CaptionModel:
    """An embedded captioner from its arrays: nothing is deserialised but numbers and words."""
    vocabulary = Vocabulary.load(folder / "vocabulary.txt")
    progress(info.title, 1, 3)
    lite0 = info.name == "efficientnet-lite0-lstm"
    arrays = network.read_arrays(folder / ("lite0_decoder.npz" if lite0 else "decoder.npz"))
    network.check_decoder(arrays, len(vocabulary.words))
    if lite0:
        encoder = lite0_encoder(classifier.load("efficientnet-lite0"))
    else:
        net = network.put_encoder(network.build_encoder(), network.read_arrays(folder / "encoder.npz"))
        encoder = keras_encoder(network.folded(net))
    progress(info.title, 2, 3)
    captioner = CaptionModel(info, vocabulary, encoder, attention_speech(arrays, vocabulary))
    look_once(captioner)
    progress(info.title, 3, 3)
    return captioner


def look_once(captioner: CaptionModel) -> None:
    """Trace the way there and back now; else whoever looks first waits for it, and the camera too."""
    canvas = captioner.prepare(np.full((8, 8, 3), 128, np.uint8))
    x = canvas.x.requires_grad_()
    features = captioner.encode(x)
    words = tuple(w.index for w in captioner.predict(features.each(Tensor.detach), canvas).words)
    captioner.score(features, Target(words=words)).sum().backward()
