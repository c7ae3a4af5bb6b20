"""Undesirable pixels: on paper, then on photographs that the classifier gets wrong."""
from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from explainers import Look, explain, steps
from explainers.perturbation import random_masks
from explainers.pixels import hidden, shown
from explainers.undesirable import CELLS, Odds, objective, odds_of, roughness, search
from explainers.undesirable.metric import labelled, main, measure
from models.base import BadInput, Model, Target
from tests.toy import Linear


@pytest.fixture(scope="module")
def detector() -> Model:
    return models.load("yolov3-tiny")


def one(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def test_the_objectives_are_the_papers() -> None:
    """Both sums written out by hand for a mask with one step in it."""
    m = torch.ones(1, 1, 3, 3)
    m[..., 1:] = 0.5
    rough = roughness(m)
    assert float(rough) == pytest.approx(2 * 0.5**3 / 4, rel=1e-4)       # of four differences two are 0.5
    first, now = Odds(one(1.0), one(2.0)), Odds(one(4.0), one(2.5))
    price = 8 * (0.5 * 6 / 9) + 2 * float(rough)
    f_tc = objective("F-TC", m, now, first, small=8, smooth=2, steady=0.3)
    f_ntc = objective("F-NTC", m, now, first, small=8, smooth=2, steady=0.3)
    assert float(f_tc) == pytest.approx(price - 4.0 + 0.3 * 0.5**2, rel=1e-5)
    assert float(f_ntc) == pytest.approx(price + 2.5 + 0.3 * 3.0**2, rel=1e-5)


@pytest.fixture
def hindered() -> Linear:
    """Class 0 is hindered by the top left quarter and helped by the bottom right one; class 1 likes both."""
    model = Linear(16, classes=3)
    model.weights.zero_()
    model.weights[0, :, :8, :8] = -0.2
    model.weights[0, :, 8:, 8:] = 0.2
    model.weights[1, :, :8, 8:] = 0.2
    return model


@pytest.mark.parametrize(("kind", "quarter"), (("F-TC", (0, 0)), ("F-NTC", (0, 1))))
def test_the_quarter_that_hinders_is_found(kind: str, quarter: tuple[int, int],
                                           hindered: Linear) -> None:
    """Of a white picture only what hinders goes: the class's own enemy, or what its rival likes."""
    x = torch.ones(1, 3, 16, 16)
    odds, inside = odds_of(hindered, Target(index=0)), torch.ones(1, 1, 16, 16)
    *_, (m, first, now) = search(odds, x, torch.zeros_like(x), inside, kind, 40)
    heat = (1 - m)[0, 0].numpy()
    means = {(i, j): heat[8 * i + 1:8 * i + 7, 8 * j + 1:8 * j + 7].mean() for i in (0, 1) for j in (0, 1)}
    assert max(means, key=lambda k: means[k]) == quarter and means[quarter] > 0.5
    assert all(v < 0.1 for k, v in means.items() if k != quarter)
    assert float(now.total) > float(first.total)


def test_the_black_box_finds_the_same_quarter(hindered: Linear) -> None:
    bright = np.full((64, 64, 3), 255, np.uint8)
    bright[::2, ::2] = 250                                                # a flat picture has no other colour
    heat = explain(hindered, bright, "undesirable_black_box", Target(index=0), replace="noise",
                   masks=1000).heat
    assert heat[1:7, 1:7].mean() > 3 * heat[9:, 9:].mean()
    assert heat.min() >= 0


def test_log_odds_are_those_of_the_probability(lite0: Model, photographs: dict[str, np.ndarray]) -> None:
    look = Look(lite0, photographs["cat"])
    for index in (281, 285, 7):
        odds = odds_of(lite0, Target(index=index))(look.x)
        assert look.prediction.probabilities is not None
        p = float(look.prediction.probabilities[index])
        assert float(odds.total.detach()) == pytest.approx(np.log(p / (1 - p)), abs=1e-3)


def test_a_rival_takes_the_place_of_all_others(lite0: Model, photographs: dict[str, np.ndarray]) -> None:
    look = Look(lite0, photographs["cat"])
    with torch.no_grad():
        logits = lite0.logits_of(look.features, Target(index=281))[0]
        odds = odds_of(lite0, Target(index=281, versus=285))(look.x)
    assert float(odds.rest) == pytest.approx(float(logits[285]), abs=1e-4)


def test_the_gain_is_its_two_parts(lite0: Model, photographs: dict[str, np.ndarray]) -> None:
    seen = list(steps(Look(lite0, photographs["cat"]), "undesirable", Target(index=285), {"iterations": 10}))
    assert [round(e.progress, 2) for e in seen] == [0.2, 0.4, 0.6, 0.8, 1.0]
    n = {k: float(v) for k, v in seen[-1].numbers.items()}
    assert n["gain"] == pytest.approx(n["gain from the class"] + n["gain from its rivals"], abs=1e-3)
    assert n["gain"] == pytest.approx(n["log-odds after"] - n["log-odds before"], abs=1e-3)
    assert n["gain"] > 0 and n["confidence after"] > n["confidence before"]
    p = n["confidence after"]
    assert n["log-odds after"] == pytest.approx(np.log(p / (1 - p)), abs=1e-2)
    assert seen[-1].image is not None and seen[-1].image.shape == (*seen[-1].heat.shape, 3)
    assert seen[-1].heat.min() >= 0 and seen[-1].heat.max() <= 1


def test_padding_is_never_taken_away(hindered: Linear) -> None:
    wide = np.full((32, 64, 3), 200, np.uint8)
    look = Look(hindered, wide)
    instead, inside = hidden(look, "noise"), shown(look)
    outside = inside[0, 0] == 0
    assert outside.sum() == 16 * 8
    assert (instead[0, :, outside] == look.x[0, :, outside]).all()
    *_, (m, _, _) = search(odds_of(hindered, Target(index=0)), look.x, instead, inside, "F-TC", 10)
    assert (m[0, 0][outside] == 1).all()


@pytest.mark.parametrize("kind", ("blur", "mean", "noise"))
def test_what_stands_instead(kind: str, lite0: Model, photographs: dict[str, np.ndarray]) -> None:
    look = Look(lite0, photographs["cat"])
    instead = hidden(look, kind)
    assert instead.shape == look.x.shape and float(instead.min()) >= 0 and float(instead.max()) <= 1
    assert (instead == hidden(look, kind)).all()
    spread = float(instead.std((2, 3)).mean())
    assert {"blur": 0 < spread < float(look.x.std((2, 3)).mean()), "mean": spread < 1e-6,
            "noise": spread > 0.2}[kind]


def test_masks_are_rises() -> None:
    masks = random_masks(200, CELLS, (56, 40), np.random.default_rng(0))
    assert masks.shape == (200, 1, 56, 40) and float(masks.min()) >= 0 and float(masks.max()) <= 1
    assert abs(float(masks.mean()) - 0.5) < 0.02


def test_a_side_of_a_box_or_a_missing_class_is_refused(lite0: Model, linear: Linear,
                                                      photographs: dict[str, np.ndarray]) -> None:
    look = Look(linear, photographs["cat"])
    for target, says in ((Target(index=0, part="left"), "those of a class or of a word"),
                         (Target(), "those of a class or of a word"),
                         (Target(index=9), "from 0 to 2, got 9")):
        with pytest.raises(BadInput, match=says):
            list(steps(look, "undesirable", target, {}))


def test_a_word_of_a_caption(captioner: Model, photographs: dict[str, np.ndarray]) -> None:
    look = Look(captioner, photographs["cat"])
    words = tuple(w.index for w in look.prediction.words)
    target = Target(index=words[1], position=1, words=words)
    *_, last = steps(look, "undesirable", target, {"iterations": 10})
    n = {k: float(v) for k, v in last.numbers.items()}
    assert n["confidence before"] == pytest.approx(look.prediction.words[1].probability, abs=1e-4)
    assert n["gain"] > 0 and n["confidence after"] > n["confidence before"]
    with pytest.raises(BadInput, match="class or of a word"):
        list(steps(look, "undesirable", Target(words=words), {}))


def test_a_box_of_the_detector(detector: Model, photographs: dict[str, np.ndarray]) -> None:
    look = Look(detector, photographs["bus"])
    box = look.prediction.boxes[-1]
    target = Target(index=box.index, anchor=box.anchor)
    *_, last = steps(look, "undesirable", target, {"iterations": 10})
    n = {k: float(v) for k, v in last.numbers.items()}
    assert n["confidence before"] == pytest.approx(box.confidence, abs=1e-3)
    assert n["confidence after"] > n["confidence before"]


def test_taking_them_away_beats_taking_random_regions_away(lite0: Model, data: Path) -> None:
    """On the first four that it gets wrong, at every share; the bench does it on all of them."""
    for row in measure(lite0, labelled(data / "imagenet"), iterations=40, only_wrong=True, most=4):
        assert row.change > row.random + 0.03, row
        assert row.improved > 0.5, row


def test_the_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "412_ashcan.jpg"
    (tmp_path / name).write_bytes((data / "imagenet" / name).read_bytes())
    assert main(["--data", str(tmp_path), "--iterations", "10"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"1 pictures?, 1 of them wrong", said) and "20 %" in said and "random" in said


@pytest.mark.parametrize(("files", "says"), (
    ((), "no JPEG"), (("cat.jpg",), "NNN_name.jpg"), (("999999_x.jpg",), "from 0 to 999")))
def test_a_folder_without_labels(files: tuple[str, ...], says: str, tmp_path: Path,
                                 capsys: pytest.CaptureFixture[str]) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"not looked at")
    assert main(["--data", str(tmp_path)]) == 2
    assert says in capsys.readouterr().err
