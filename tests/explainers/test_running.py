"""When random samples have said enough: the estimate on known noise, and early stops against full runs."""
from __future__ import annotations

import cv2
import numpy as np
import pytest
import scipy.stats

from explainers import running
from explainers.base import Look, steps
from explainers.gradient import per_pixel, smoothed
from explainers.perturbation import over_masks
from explainers.pixels import probability
from explainers.running import rank_correlation
from models.base import Canvas, Target, letterbox
from tests.explainers.test_perturbation import Bright
from tests.toy import Linear, asked


@pytest.fixture
def canvas() -> Canvas:
    return letterbox(np.zeros((64, 48, 3), np.uint8), 64)


def test_rank_correlation_is_scipys() -> None:
    draw = np.random.default_rng(0)
    a = draw.standard_normal(500).round(1)                     # with ties
    b = (a + draw.standard_normal(500)).round(1)
    assert rank_correlation(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic)


def mean(maps: list[np.ndarray]) -> np.ndarray:
    return np.mean(maps, 0)


@pytest.mark.parametrize("parts", [2, 4, 8])
@pytest.mark.parametrize(("noise", "done"), [(0.3, 200), (1.0, 300), (1.0, 500), (3.0, 900)])
def test_what_is_expected_is_what_happens(canvas: Canvas, noise: float, done: int, parts: int) -> None:
    """A mean of `done` of 1000 samples, against the mean of all: the noise of one sample is 10 x `noise`."""
    draw = np.random.default_rng(done)
    truth = draw.standard_normal(canvas.size)
    expected, happened = [], []
    for _ in range(10):
        maps = [truth + 10 * noise / count ** 0.5 * draw.standard_normal(canvas.size)
                for count in [done / parts] * parts + [1000 - done]]
        now = mean(maps[:-1])
        all_of_them = done / 1000 * now + (1 - done / 1000) * maps[-1]
        said = running.running(maps[:-1], mean, canvas, done, 1000)
        expected.append(said.agreement)
        happened.append(rank_correlation(now[canvas.inside], all_of_them[canvas.inside]))
        ratio = 10 * noise / done ** 0.5
        assert said.error == pytest.approx(ratio / (1 + ratio ** 2) ** 0.5, rel=0.1)
    assert np.mean(expected) == pytest.approx(np.mean(happened), abs=0.02)


def test_a_strong_spot_on_a_ground_of_noise_settles_nothing(canvas: Canvas) -> None:
    """Its pixels correlate almost perfectly, its ranks do not at all."""
    draw = np.random.default_rng(0)
    spot = np.zeros(canvas.size)
    spot[20:24, 20:24] = 1000
    one, two = (spot + draw.standard_normal(canvas.size) for _ in range(2))
    said = running.running([one, two], mean, canvas, 500, 1000)
    assert np.corrcoef(one[canvas.inside].ravel(), two[canvas.inside].ravel())[0, 1] > 0.999
    assert said.error < 0.1 and said.agreement < 0.9 and not said.settled


def test_nothing_and_opposites_settle_nothing(canvas: Canvas) -> None:
    ramp = np.arange(64 * 64, dtype=float).reshape(64, 64)
    for one, two in ((0 * ramp, 0 * ramp), (ramp, -ramp), (ramp, 0 * ramp)):
        assert not running.running([one, two], mean, canvas, 500, 1000).settled
    assert running.running([ramp, 2 * ramp], mean, canvas, 500, 1000).settled


def test_rise_ends_when_the_rest_would_change_nothing_and_says_so() -> None:
    look = Look(Bright(classes=2), np.full((16, 16, 3), 250, np.uint8))
    given = {"masks": 4000, "grid": 4}
    *before, last = steps(look, "rise", Target(0), given)
    *_, full = over_masks(look, probability(look, Target(0)), 4000, 4, "black", 0)
    done = int(last.numbers["masks"])
    assert 100 <= done < 4000 and last.done and not any(e.done for e in before)
    assert last.note == f"{done} of 4000 masks: the rest would change nothing."
    assert 0 < float(last.numbers["running error"]) < 0.5
    assert rank_correlation(last.heat, full.heat) > 0.99
    assert full.numbers["masks"] == 4000 and not full.note
    *_, again = steps(look, "rise", Target(0), given)
    np.testing.assert_array_equal(again.heat, last.heat)
    *_, whole = over_masks(look, probability(look, Target(0)), done, 4, "black", 0)
    np.testing.assert_array_equal(whole.heat, last.heat)      # the same masks as far as they go


def test_smooth_grad_of_a_linear_model_needs_no_more_than_a_few_copies(linear: Linear) -> None:
    look = Look(linear, np.full((16, 16, 3), 99, np.uint8))
    *_, last = steps(look, "smooth_grad", Target(1), {"samples": 100})
    assert last.done and last.numbers["samples"] == 10 and "nothing" in last.note
    *_, (mean, done) = smoothed(look.forward(Target(1)), look.x, 100, 0.15, 0)
    assert done == 100
    np.testing.assert_allclose(last.heat, per_pixel(mean), atol=1e-6)


@pytest.mark.parametrize("picture", ["003_tiger_shark", "131_little_blue_heron"])
def test_on_photographs_an_early_stop_is_no_hundredth_away(lite0, data, picture: str) -> None:
    frame = np.asarray(cv2.imread(str(data / "imagenet" / f"{picture}.jpg"), cv2.IMREAD_COLOR_RGB))
    look = Look(lite0, frame)
    target = asked(None, look)
    *_, last = steps(look, "rise", target, {"masks": 400, "grid": 4})
    *_, full = over_masks(look, probability(look, target), 400, 4, "black", 0)
    assert rank_correlation(last.heat, full.heat) > 0.99
    *_, last = steps(look, "smooth_grad", target, {})
    assert last.numbers["samples"] == 24 and not last.note    # two dozen noisy maps are never too many
