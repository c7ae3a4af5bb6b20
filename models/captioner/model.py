"""The captioner as a model: a caption, and the score of every word."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from models import compiled, nets
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
    randomised_copy,
    squeeze,
)
from models.captioner import decoder, encoder
from models.captioner.search import Memory, Sentence, beam_search
from models.captioner.steps import Speaker
from models.captioner.vocabulary import Vocabulary

HABIT = 0.05
"""A word whose log-probability falls by less than this (nats) without the picture is said from habit.
On 80 dev photographs it marks 30 % of the words: 95 % of "of", 85 % of "the", 82 % of "people" (as in "a
group of people"), but no "dog", "man", "woman" or "boy"; at 0.1 it would mark a quarter of "dog"."""
COLOURS = 8
"""Levels of each channel of the mean colour: the empty picture of a scene is then looked at once."""
RUNNERS_UP = 4


@dataclass(frozen=True)
class Sight:
    """The first half: pixels to the last map, its layers' number, and itself with the last drawn anew."""

    run: Callable[[Tensor], Tensor]
    layers: int
    redrawn: Callable[[int, int], Sight]


class Speech(Protocol):
    """The second half: words from maps. steps.Speaker, or a user's own.

    A picture is a tuple of tensors, N first; a memory one of tensors NxBx... for B captions of each.
    """

    layers: int

    def look(self, maps: Tensor) -> Any:
        """NxLxC, the positions row by row, to pictures."""

    def first(self, picture: Any) -> Memory:
        """The memory of one caption a picture before its first word."""

    def step(self, picture: Any, words: Tensor, memory: Any) -> tuple[Tensor, Memory]:
        """The last words NxB to log-probabilities NxBxV of the next, and the memory after them."""

    def follow(self, picture: Any, words: Sequence[int]) -> Tensor:
        """NxTxV: log-probabilities of every word at each place of a caption; differentiable in the maps."""

    def channel_gradients(self, picture: Any, words: Sequence[int]) -> Tensor:
        """TxC: every word's gradient at one picture's maps, averaged over positions."""

    def redrawn(self, count: int, seed: int) -> Speech:
        """A copy whose last `count` layers are drawn anew."""


class CaptionModel:
    """What sees, and what speaks about it."""

    offers = frozenset({"gradient", "maps", "words", "redraw"})

    def __init__(self, info: ModelInfo, vocabulary: Vocabulary, sight: Sight, speech: Speech, side: int):
        self.info, self.vocabulary = info, vocabulary
        self.labels = dict(enumerate(vocabulary.words))
        self.sight, self.speech, self._side = sight, speech, side
        self._empty = lru_cache(maxsize=64)(self._look_at_colour)
        self._seen: tuple[Tensor, int, Any] | None = None

    def prepare(self, frame: np.ndarray) -> Canvas:
        return squeeze(frame, self._side)

    def encode(self, x: Tensor) -> Features:
        return Features((self.sight.run(x),))

    def predict(self, features: Features, canvas: Canvas, **settings: Any) -> Prediction:
        beam, longest = settings.get("beam", 3), settings.get("longest", 20)
        return self.read(features, canvas, self.sentences(features, beam, longest)[0].words)

    def sentences(self, features: Features, beam: int, longest: int = 20) -> list[Sentence]:
        """What the beam search finds in one picture, best first."""
        speech, picture = self.speech, self._picture(features)
        with torch.inference_mode():
            return beam_search(lambda words, memory: speech.step(picture, words, memory),
                               speech.first(picture), start=self.vocabulary.start, end=self.vocabulary.end,
                               width=beam, longest=longest)[0]

    def read(self, features: Features, canvas: Canvas, words: tuple[int, ...]) -> Prediction:
        """A caption taken as given: each word's probability, its runners-up, and whether it is habit."""
        both = self._picture(features), self._empty(_colour(canvas.x))
        with torch.inference_mode():
            log_p, without = self.speech.follow(together(*both), words).cpu().numpy()
        log_p[:, self.vocabulary.end] = -np.inf          # it never stands in a word's place on the page
        shown = []
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
        """What is seen of these features; a caption, its words and their maps ask in turn."""
        maps, seen = features.maps[0], self._seen
        if seen is None or seen[0] is not maps or seen[1] != maps._version:
            with torch.no_grad():
                seen = self._seen = maps, maps._version, self.speech.look(_rows(maps.detach()))
        return seen[2]

    def _look_at_colour(self, colour: tuple[int, ...]) -> Any:
        """What is seen of a canvas of one colour: the picture replaced by its mean."""
        x = torch.tensor(colour, device=device()).float().div(COLOURS).view(1, 3, 1, 1)
        with torch.no_grad():
            return self.speech.look(_rows(self.encode(x.repeat(1, 1, self._side, self._side)).maps[0]))

    def _follow(self, features: Features, words: Sequence[int]) -> Tensor:
        return self.speech.follow(self.speech.look(_rows(features.maps[0])), words)

    def score(self, features: Features, target: Target) -> Tensor:
        """log p(word | words before, picture): one word (minus a rival), or the sum over all."""
        words, at = self._given(target), target.position
        if at is None:
            return self._follow(features, words)[:, range(len(words)), words].sum(1)
        log_p = self._follow(features, words[: at + 1])[:, at]
        chosen = log_p[:, words[at]]
        return chosen if target.versus is None else chosen - log_p[:, target.versus]

    def logits_of(self, features: Features, target: Target) -> Tensor:
        """Every word's number in one place of the caption: log-probabilities, shifted to a mean of zero."""
        words, at = self._given(target), target.position
        if at is None:
            raise BadInput("a whole caption has no classes to compare; say which word, as in word:1")
        log_p = self._follow(features, words[: at + 1])[:, at]
        return log_p - log_p.mean(1, keepdim=True)

    def probability(self, features: Features, target: Target) -> Tensor:
        score = self.score(features, target)
        if target.position is None:
            return (score / len(self._given(target))).exp()
        return score.exp() if target.versus is None else score.sigmoid()

    def channel_gradients(self, features: Features, target: Target) -> Tensor:
        """TxC: every word's d log p / d features averaged over positions, as Grad-CAM weighs channels."""
        return self.speech.channel_gradients(self._picture(features), self._given(target))

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

    def redrawn(self, share: float, seed: int) -> tuple[Sight, Speech]:
        """Both halves with the last `share` of layers drawn anew: first what says words, then what sees."""
        count = max(1, round(share * (self.sight.layers + self.speech.layers)))
        deep = count - self.speech.layers
        return (self.sight.redrawn(deep, seed) if deep > 0 else self.sight,
                self.speech.redrawn(min(count, self.speech.layers), seed))

    def randomised(self, share: float, seed: int) -> CaptionModel:
        return CaptionModel(self.info, self.vocabulary, *self.redrawn(share, seed), self._side)


class TorchCaptioner(CaptionModel):
    """A captioner that sees with a torch net, whose layers can be looked into and which is compiled."""

    def __init__(self, info: ModelInfo, vocabulary: Vocabulary, body: compiled.Body, speech: Speaker):
        super().__init__(info, vocabulary, sight(body), speech, body.size)
        self.net, self.body, self.parts = body.net, body, (body, speech)
        self.offers = CaptionModel.offers | {"net"} | nets.relu(body.net)


def together(*pictures: Any) -> Any:
    """Several pictures as one batch of them."""
    return type(pictures[0])(*map(torch.cat, zip(*pictures, strict=True)))


def _rows(maps: Tensor) -> Tensor:
    """NxCxhxw to Nx(h*w)xC."""
    return maps.flatten(2).transpose(1, 2)


def _colour(x: Tensor) -> tuple[int, ...]:
    return tuple(int(v) for v in x.detach()[0].mean((1, 2)).mul(COLOURS).round().tolist())


def sight(body: compiled.Body) -> Sight:
    """A torch net's maps. Those of its layers that come after them, if it has such, are not counted."""
    layers = sum(isinstance(m, nn.Conv2d) for m in body.net.modules())
    beyond = sum(isinstance(m, nn.Linear) for m in body.net.modules())

    def redrawn(count: int, seed: int) -> Sight:
        net = randomised_copy(body.net, (count + beyond) / (layers + beyond), seed)
        return sight(compiled.Body(net, body.cut, body.size))

    return Sight(lambda x: body(x).maps[0], layers, redrawn)


def efficientnetv2(folder: Path) -> compiled.Body:
    """Our own EfficientNetV2-B0, from its arrays."""
    net = encoder.filled(encoder.EfficientNetV2B0(), arrays_of(folder / "encoder.npz"))
    net.requires_grad_(False).to(device())
    nets.channels_last(net)
    return compiled.Body(net, lambda net: lambda x: Features((net(x),)), encoder.SIDE)


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """The named arrays of an .npz as float32; nothing in it is ever unpickled."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name].astype(np.float32) for name in file.files}


def load(info: ModelInfo, folder: Path, progress: Progress) -> TorchCaptioner:
    """An embedded captioner from its arrays: nothing is deserialised but numbers and words."""
    progress(info.title, 0, 2)
    vocabulary = Vocabulary.load(folder / "vocabulary.txt")
    lite0 = info.name == "efficientnet-lite0-lstm"
    speech = decoder.from_arrays(arrays_of(folder / ("lite0_decoder.npz" if lite0 else "decoder.npz")))
    if speech.sizes.words != len(vocabulary.words):
        raise ValueError(f"the decoder tells {speech.sizes.words} words apart, and the vocabulary has "
                         f"{len(vocabulary.words)} lines")
    progress(info.title, 1, 2)
    if lite0:
        from models import classifier  # only for this one

        body = classifier.load("efficientnet-lite0").body
    else:
        body = efficientnetv2(folder)
    captioner = TorchCaptioner(info, vocabulary, body, Speaker(speech.to(device())))
    progress(info.title, 2, 2)
    return captioner
