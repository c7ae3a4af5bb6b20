"""The shipped captioner: against Keras, words, typed captions, word maps, and what it costs in memory."""
from __future__ import annotations

import itertools
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import models
from explainers import Look, explain
from models.base import BadInput, Features, Target
from models.captioner import WEIGHTS
from models.captioner.model import arrays_of
from models.captioner.search import beam_search
from tests.conftest import read_rgb
from tests.toy import asked


@pytest.fixture(scope="module")
def astronaut(captioner: Any, photographs: dict[str, np.ndarray]) -> Look:
    return Look(captioner, photographs["astronaut"])


def test_it_is_embedded_and_the_first_of_its_kind() -> None:
    info = models.catalog()["efficientnetv2-lstm"]
    assert info.embedded and info.task == "caption" and models.default("caption") == info.name


def test_torch_comes_before_tensorflow() -> None:
    code = ("import sys, models.captioner.bridge; names = list(sys.modules); "
            "assert names.index('torch._dynamo') < names.index('tensorflow')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def keras_encoder() -> Any:
    from tests.models.captioner import oracle

    return oracle.encoder(arrays_of(WEIGHTS / "encoder.npz"))


@pytest.fixture(scope="module")
def keras_decoder() -> Any:
    from tests.models.captioner import oracle

    return oracle.Decoder(arrays_of(WEIGHTS / "decoder.npz"))


def keras_maps(net: Any, x: torch.Tensor) -> np.ndarray:
    """NxLxC from pictures in [0,1]."""
    maps = np.asarray(net(x.permute(0, 2, 3, 1).numpy() * 255, training=False))
    return maps.reshape(len(maps), -1, maps.shape[-1])


def test_maps_and_words_are_those_that_keras_gives(captioner: Any, keras_encoder: Any, keras_decoder: Any,
                                                   photographs: dict[str, np.ndarray]) -> None:
    for frame in photographs.values():
        look = Look(captioner, frame)
        expected = keras_maps(keras_encoder, look.x)
        ours = look.features.maps[0].flatten(2).transpose(1, 2).numpy()
        assert np.abs(ours - expected).max() <= 1e-4 * np.abs(expected).max()
        words = tuple(w.index for w in look.prediction.words)
        by_keras = keras_decoder.follow(expected, words).numpy()[0, range(len(words)), words]
        assert [math.log(w.probability) for w in look.prediction.words] == pytest.approx(by_keras, abs=1e-4)


def test_word_maps_are_those_of_a_tape(captioner: Any, keras_decoder: Any, astronaut: Look) -> None:
    words = tuple(w.index for w in astronaut.prediction.words)
    maps = astronaut.features.maps[0].flatten(2).transpose(1, 2).numpy()
    by_tape = keras_decoder.gradients(maps, words).mean(1)
    ours = captioner.channel_gradients(astronaut.features, asked("caption", astronaut)).numpy()
    assert np.abs(ours - by_tape).max() <= 1e-4 * np.abs(by_tape).max()


def test_a_hundred_photographs_are_captioned_as_by_keras(captioner: Any, keras_encoder: Any,
                                                         keras_decoder: Any, data: Path) -> None:
    lines = (data / "flickr8k" / "captions.tsv").read_text().splitlines()
    names = sorted({line.split("\t")[1] for line in lines if line.startswith("dev")})[:100]
    for first in range(0, len(names), 10):
        frames = [read_rgb(data / "flickr8k" / "images" / name) for name in names[first: first + 10]]
        maps = keras_maps(keras_encoder, torch.cat([captioner.prepare(f).x for f in frames]))
        for own, frame in zip(maps, frames, strict=True):
            values, memory = keras_decoder.look(own[None])

            def step(words: torch.Tensor, held: Any) -> Any:
                rows = [np.ascontiguousarray(part[0].numpy()) for part in held]
                seen = np.repeat(values.numpy(), len(rows[0]), 0)  # noqa: B023
                log_p, after = keras_decoder.step(seen, words[0].numpy(), tuple(rows))
                return torch.from_numpy(log_p.numpy())[None], tuple(
                    torch.from_numpy(part.numpy())[None] for part in after)

            begun = tuple(torch.from_numpy(part.numpy())[None] for part in memory)
            best = beam_search(step, begun, start=captioner.vocabulary.start, end=captioner.vocabulary.end)
            assert Look(captioner, frame).prediction.caption == captioner.vocabulary.say(best[0][0].words)


@pytest.mark.parametrize("stage", ["encode", "score"])
def test_gradients_agree_with_finite_differences(captioner: Any, astronaut: Look, stage: str) -> None:
    target = asked("word:1", astronaut)
    if stage == "score":
        start, run = astronaut.features.maps[0], lambda f: captioner.score(Features((f,)), target)
    else:
        fixed = torch.randn(astronaut.features.maps[0].shape, generator=torch.Generator().manual_seed(0))
        start, run = astronaut.x, lambda x: (captioner.encode(x).maps[0] * fixed).sum((1, 2, 3))
    leaf = start.clone().requires_grad_()
    run(leaf).sum().backward()
    assert leaf.grad is not None and leaf.grad.shape == start.shape
    uphill = leaf.grad / leaf.grad.norm()
    share = 1e-4 * float(start.norm())
    with torch.no_grad():
        measured = (run(start + share * uphill) - run(start - share * uphill)) / (2 * share)
    assert float(measured) == pytest.approx(float(leaf.grad.norm()), rel=1e-2)


def test_autograd_may_come_back_twice_and_batches_are_independent(captioner: Any, astronaut: Look) -> None:
    target = asked("caption", astronaut)
    pair = torch.cat([astronaut.x, astronaut.x.flip(3)]).requires_grad_()
    score = captioner.score(captioner.encode(pair), target)
    assert score.shape == (2,)
    (first,) = torch.autograd.grad(score[0], pair, retain_graph=True)
    (again,) = torch.autograd.grad(score[0], pair)
    assert torch.equal(first, again)
    assert first[0].abs().max() > 0 and first[1].abs().max() == 0


def test_what_is_shown_is_what_was_decoded_and_what_is_explained(captioner: Any, astronaut: Look) -> None:
    words = astronaut.prediction.words
    best = captioner.sentences(astronaut.features, beam=3)[0]
    assert best.words == tuple(w.index for w in words)
    decoded = np.exp(best.log_probabilities[: len(words)])
    assert [w.probability for w in words] == pytest.approx(decoded.tolist(), abs=1e-5)
    each = [float(captioner.score(astronaut.features, asked(f"word:{t}", astronaut)))
            for t in range(len(words))]
    assert each == pytest.approx([math.log(w.probability) for w in words], abs=1e-3)
    assert float(captioner.score(astronaut.features, asked("caption", astronaut))) == pytest.approx(
        sum(each), abs=1e-3)
    assert astronaut.prediction.caption == " ".join(w.word for w in words)


def test_greedy_equals_beam_one(captioner: Any, photographs: dict[str, np.ndarray]) -> None:
    for frame in photographs.values():
        features = captioner.encode(captioner.prepare(frame).x)
        said: list[int] = []
        end = captioner.vocabulary.end
        while len(said) < 20:
            scores = captioner.logits_of(features, Target(words=(*said, end), position=len(said)))[0].numpy()
            seen_after = [b for a, b in zip(said, said[1:], strict=False) if a == said[-1]]
            scores[[*seen_after, *([] if said else [end])]] = -np.inf
            if int(scores.argmax()) == end:
                break
            said.append(int(scores.argmax()))
        assert captioner.sentences(features, beam=1)[0].words == tuple(said)


def test_runners_up_are_other_words_best_first(astronaut: Look) -> None:
    for word in astronaut.prediction.words:
        assert len(word.others) == 4 and word.word not in [o.label for o in word.others]
        assert all(a.probability >= b.probability for a, b in itertools.pairwise(word.others))
        assert not {o.label for o in word.others} & {"<pad>", "<start>", "<end>", "<unk>"}


def test_versus_is_the_difference_of_two_words(captioner: Any, astronaut: Look) -> None:
    rival = astronaut.prediction.words[1].others[0].label
    target = asked(f"word:1/versus:{rival}", astronaut)
    word = replace(target, versus=None)
    three = (target, word, word.rival(captioner.word(rival)))
    parts = [float(captioner.score(astronaut.features, t)) for t in three]
    assert parts[0] == pytest.approx(parts[1] - parts[2], abs=1e-4)


@pytest.mark.parametrize(("text", "sentence"), [
    ("caption/text:a zyzzyva chases a qwertz", "does not know 'zyzzyva' and 'qwertz'"),
    ("caption/text:", "the caption is empty"),
    ("caption/text:!?", "the caption is empty"),
    ("caption/text:" + "dog " * 61, "at most 60 words, got 61"),
    ("word:3/text:a dog runs", "from 0 to 2 in 'a dog runs', got 3"),
    ("word:x/text:a dog runs", "a whole number from 0, got 'x'"),
    ("word:1/versus:qwertz", "does not know 'qwertz'"),
    ("caption/versus:cat", "say which, as in word:1/versus:cat"),
    ("class:3", "say word:N or caption"),
    ("caption/text:a <end> dog <unk>", "does not know 'unk'"),
])
def test_what_cannot_be_asked_gets_a_sentence(astronaut: Look, text: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        asked(text, astronaut)


def test_a_score_without_a_caption_is_refused(captioner: Any, astronaut: Look) -> None:
    with pytest.raises(BadInput, match="the target gives none"):
        captioner.score(astronaut.features, Target(position=0))


@pytest.mark.parametrize("text", ["dog", "a dog runs", "dog " * 60])
def test_a_typed_caption_is_scored_and_explained(captioner: Any, astronaut: Look, text: str) -> None:
    e = explain(captioner, astronaut.frame, "word_maps", f"caption/text:{text}")
    assert e.prediction is not None and len(e.maps) == len(text.split()) == len(e.prediction.words)
    score = float(captioner.score(astronaut.features, asked(f"caption/text:{text}", astronaut)))
    assert sum(float(v) for v in e.numbers.values()) == pytest.approx(score, abs=2e-2)


def test_all_word_maps_at_once_are_grad_cam_of_each(captioner: Any, astronaut: Look) -> None:
    together = explain(captioner, astronaut.frame, "word_maps")
    for t, level in enumerate(together.maps.values()):
        alone = explain(captioner, astronaut.frame, "grad_cam", f"word:{t}").heat
        assert np.abs(alone - level).max() <= 1e-3 * max(np.abs(alone).max(), 1e-9)
    whole = explain(captioner, astronaut.frame, "grad_cam", "caption").heat
    assert np.abs(whole - together.heat).max() <= 1e-3 * np.abs(whole).max()


def test_two_nouns_look_at_different_places(captioner: Any, data: Path) -> None:
    """Dev pictures whose every caption has a dog, and most a frisbee."""
    alike = []
    for name in ("427936315_0b8f7b8d23", "756521713_5d3da56a54", "2249480913_e1695e5c28"):
        frame = read_rgb(data / "flickr8k" / "images" / f"{name}.jpg")
        maps = explain(captioner, frame, "word_maps", "caption/text:a dog catches a frisbee").maps
        dog, frisbee = maps["1 dog"], maps["4 frisbee"]
        assert dog.max() > 0 and frisbee.max() > 0
        alike.append(float(np.corrcoef(dog.ravel(), frisbee.ravel())[0, 1]))
    assert np.median(alike) < 0.9, f"the maps of dog and frisbee correlate by {alike}"


def test_without_a_picture_every_word_is_habit(captioner: Any) -> None:
    grey = np.full((120, 160, 3), 128, np.uint8)                 # nothing but its own mean colour
    assert all(word.habit for word in Look(captioner, grey).prediction.words)


def test_habit_words_on_photographs(captioner: Any, data: Path) -> None:
    """Over dev photographs: small words are often habit, and the nouns that carry a caption hardly ever."""
    small, telling = [], []
    for line in (data / "flickr8k" / "captions.tsv").read_text().splitlines()[:3000:100]:
        prediction = Look(captioner, read_rgb(data / "flickr8k" / "images" / line.split("\t")[1])).prediction
        for word in prediction.words:
            if word.word in ("of", "the", "is", "are"):
                small.append(word.habit)
            elif word.word in ("dog", "dogs", "man", "woman", "girl", "boy", "two", "beach"):
                telling.append(word.habit)
    assert len(small) >= 5 and len(telling) >= 5
    assert np.mean(small) > 0.3 + np.mean(telling)


def test_a_randomised_copy_is_a_copy(captioner: Any, astronaut: Look) -> None:
    target = asked("caption", astronaut)
    before = float(captioner.score(astronaut.features, target))
    head = captioner.randomised(0.01, seed=0)                   # the words alone
    assert torch.equal(head.encode(astronaut.x).maps[0], astronaut.features.maps[0])
    assert abs(float(head.score(astronaut.features, target)) - before) > 1
    deep = captioner.randomised(0.5, seed=0)
    assert not torch.allclose(deep.encode(astronaut.x).maps[0], astronaut.features.maps[0])
    assert torch.isfinite(deep.score(deep.encode(astronaut.x), target)).all()
    assert float(captioner.score(captioner.encode(astronaut.x), target)) == pytest.approx(before, abs=1e-4)


def test_memory_stays_flat(captioner: Any, photographs: dict[str, np.ndarray]) -> None:
    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    frames = list(photographs.values())

    def work(times: int) -> None:
        for i in range(times):
            look = Look(captioner, frames[i % len(frames)])
            look.feature_gradients(asked("word:0", look))

    work(25)
    before = resident()
    work(50)
    assert resident() - before < 40, f"{resident() - before:.0f} MB more after 50 captions"


def test_the_second_captioner_speaks_too(photographs: dict[str, np.ndarray]) -> None:
    second = models.load("efficientnet-lite0-lstm")
    assert not explain(second, photographs["astronaut"], "saliency", "word:1").empty
    maps = explain(second, photographs["astronaut"], "word_maps").maps
    assert len(maps) >= 3 and max(level.max() for level in maps.values()) > 0
