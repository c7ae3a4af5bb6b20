"""Occlusion and random masks: closed forms on linear models, captum, and boxes of a toy detector."""
from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import captum.attr
import numpy as np
import pytest
import torch

from explainers import perturbation
from explainers.base import Look, steps
from explainers.pixels import hidden
from models.base import BadInput, Box, Choice, Prediction, Target
from tests.toy import Linear


@pytest.fixture
def frame() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def test_occlusion_of_a_linear_model_is_weight_times_pixel(linear, frame) -> None:
    e = _last(linear, frame, "occlusion", Target(1), window=0.07, stride=0.07, fill="black")
    x = Look(linear, frame).x[0]
    np.testing.assert_allclose(e.heat, (linear.weights[1] * x).sum(0).cpu(), atol=1e-5)
    assert e.numbers["windows"] == 256


def _last(model, frame, method, target, **params):
    *_, e = steps(Look(model, frame), method, target, params)
    return e


@pytest.mark.parametrize(("window", "stride"), [(0.25, 0.25), (0.3, 0.2), (0.45, 0.14)])
def test_occlusion_equals_captum(linear, frame, window: float, stride: float) -> None:
    look = Look(linear, frame)
    size, step = round(window * 16), round(stride * 16)
    expected = captum.attr.Occlusion(look.forward(Target(2))).attribute(
        look.x, sliding_window_shapes=(3, size, size), strides=(3, step, step),
        baselines=hidden(look, "mean"))[0, 0]
    e = _last(linear, frame, "occlusion", Target(2), window=window, stride=stride)
    np.testing.assert_allclose(e.heat, expected.cpu(), atol=1e-5)


def test_random_masks_are_half_open() -> None:
    masks = perturbation.random_masks(400, 8, (30, 50), np.random.default_rng(0))
    assert masks.shape == (400, 1, 30, 50) and masks.min() >= 0 and masks.max() <= 1
    assert float((masks.mean(0) - 0.5).abs().max()) < 0.12


class Bright(Linear):
    """The probability is the brightness of one patch: only hiding that patch matters."""

    def logits_of(self, features, target):
        share = features.maps[0][:, :, 4:8, 8:12].mean((1, 2, 3)).clamp(1e-4, 1 - 1e-4)
        return torch.stack([share.logit(), torch.zeros_like(share)], 1)


def test_rise_finds_the_patch_that_matters_and_says_how_far_it_is() -> None:
    model = Bright(classes=2)
    look = Look(model, np.full((16, 16, 3), 250, np.uint8))
    seen = list(steps(look, "rise", Target(0), {"masks": 300, "grid": 4}))
    heat = seen[-1].heat
    assert heat[4:8, 8:12].mean() > 4 * abs(np.delete(heat, np.s_[3:9], 0)).mean()
    assert seen[-1].done and seen[0].progress < 0.1 and "mostly chance" in seen[0].note
    again = _last(model, look.frame, "rise", Target(0), masks=300, grid=4)
    np.testing.assert_array_equal(heat, again.heat)
    other = _last(model, look.frame, "rise", Target(0), masks=300, grid=4, seed=1)
    assert not np.array_equal(heat, other.heat)


class Spot(Linear):
    """A detector of one box, as confident as the patch inside it is bright."""

    def __init__(self) -> None:
        super().__init__(16)
        self.info = replace(self.info, task="detect")

    def predict(self, features, canvas, **settings):
        sure = float(features.maps[0][0, :, 4:8, 8:12].mean())
        choices = (Choice(1, "class 1", sure), Choice(2, "class 2", sure / 10))
        return Prediction("detect", boxes=(Box(1, "class 1", sure, (8.0, 4.0, 12.0, 8.0), 5, choices),))


def test_d_rise_finds_the_box() -> None:
    look = Look(Spot(), np.full((16, 16, 3), 250, np.uint8))
    *_, e = steps(look, "d_rise", Target(1, anchor=5), {"masks": 200, "grid": 4})
    assert e.heat[4:8, 8:12].mean() > 4 * abs(np.delete(e.heat, np.s_[3:9], 0)).mean()
    with pytest.raises(BadInput, match="box:0"):
        list(steps(look, "d_rise", Target(1, anchor=6), {"masks": 20}))


def test_overlap_and_weight_by_hand() -> None:
    assert perturbation.overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    wanted = Box(1, "a", 0.8, (0, 0, 2, 2), 0)
    found = Prediction("detect", boxes=(Box(1, "a", 0.5, (1, 0, 3, 2), 1), Box(2, "b", 0.9, (0, 0, 2, 2), 2)))
    assert perturbation._best(found, wanted, {1: 1.0}) == pytest.approx(0.5 / 3)


def test_it_can_be_stopped_between_steps(lite0, photographs) -> None:
    running = steps(Look(lite0, photographs["cat"]), "rise", Target(281), {})
    first = next(running)
    assert isinstance(running, Generator)
    running.close()
    assert not first.done and np.isfinite(first.heat).all()
