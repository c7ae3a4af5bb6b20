"""Attacks: the analytic corner of a linear model, captum's PGD, bounds, flips and controls."""
from __future__ import annotations

import captum.robust
import numpy as np
import pytest
import torch

from explainers import adversarial
from explainers.base import Look, steps
from models.base import Box, Prediction, Target, letterbox
from tests.toy import Linear, asked


@pytest.fixture
def frame() -> np.ndarray:
    return np.random.default_rng(2).integers(40, 216, (16, 16, 3), dtype=np.uint8)


def attacked(model, frame, method, target, **params):
    *_, e = steps(Look(model, frame), method, target, params)
    return e


@pytest.mark.parametrize("method", ["fgsm", "pgd"])
def test_a_linear_model_is_driven_into_the_analytic_corner(method: str, frame) -> None:
    model = Linear(classes=2)
    x = Look(model, frame).x[0]
    corner = x - 3 / 255 * torch.sign(model.weights[0] - model.weights[1])
    e = attacked(model, frame, method, Target(0), epsilon=3)
    np.testing.assert_allclose(e.image, corner.permute(1, 2, 0).cpu(), atol=1e-6)
    towards = attacked(model, frame, method, Target(0, versus=1), epsilon=3)
    np.testing.assert_allclose(towards.image, e.image, atol=1e-6)
    np.testing.assert_allclose(e.heat, (3 / 255 * model.weights[0].abs()).sum(0).cpu(), atol=1e-6)


def test_the_smallest_epsilon_of_a_linear_model(frame) -> None:
    model = Linear(classes=2)
    look = Look(model, frame)
    logits = model.logits_of(look.features, Target())[0]
    top, other = logits.argsort(descending=True).tolist()
    steepness = (model.weights[top] - model.weights[other]).abs().sum()
    expected = float((logits[top] - logits[other]) / steepness)
    e = attacked(model, frame, "fgsm", Target(top), epsilon=8)
    least = e.numbers[adversarial.LEAST]
    if expected * 255 < adversarial.LARGEST * 0.9:
        assert float(least) == pytest.approx(expected * 255, abs=adversarial.LARGEST / 2 ** 6)
    else:
        assert "more than" in str(least)


def test_pgd_equals_captum(lite0, photographs) -> None:
    look = Look(lite0, photographs["cat"])
    target = asked(None, look)
    against = adversarial.objective(look, target)
    theirs = captum.robust.PGD(against, lambda out, _: -1e3 * out, 0.0, 1.0).perturb(
        look.x.clone(), radius=2 / 255, step_size=2.5 * 2 / 255 / 3, step_num=3, target=None)
    for e in steps(look, "pgd", target, {"steps": 3}):
        if e.prediction:
            break
    assert e.image is not None and e.prediction is not None
    np.testing.assert_allclose(e.image, theirs[0].permute(1, 2, 0).cpu(), atol=1e-5)
    assert np.abs(e.image - look.x[0].permute(1, 2, 0).cpu().numpy()).max() <= 2 / 255 + 1e-6
    assert e.image.min() >= 0 and e.image.max() <= 1
    chance = float(e.numbers["after random noise of the same size"])
    assert float(e.numbers["probability after"]) < 0.1 * min(chance, float(e.numbers["probability before"]))
    assert e.prediction.classes[0].index != target.index and e.numbers["changed"] == "yes"
    assert set(e.images) == {"perturbation x10", "random noise"}


def test_towards_a_chosen_class(lite0, photographs) -> None:
    look = Look(lite0, photographs["cat"])
    target = asked("class:281/versus:207", look)
    for e in steps(look, "pgd", target, {"epsilon": 8, "steps": 8}):
        if e.prediction:
            break
    assert e.prediction is not None and e.prediction.classes[0].index == 207


def test_masked_noise_falls_where_the_gradient_is_large(frame) -> None:
    model = Linear(classes=2)
    e = attacked(model, frame, "masked_noise", Target(0), share=0.5, epsilon=10)
    strength = (model.weights[0] - model.weights[1]).abs().amax(0).cpu().numpy()
    changed = np.abs(e.image - Look(model, frame).x[0].permute(1, 2, 0).cpu().numpy()).max(2) > 1e-6
    np.testing.assert_array_equal(changed, strength > 0.5 * strength.max())
    assert e.numbers["share of pixels changed"] == pytest.approx(changed.mean())


def test_padding_is_left_alone() -> None:
    model = Linear(16, prepare=letterbox)
    look = Look(model, np.full((8, 16, 3), 120, np.uint8))
    e = attacked(model, look.frame, "fgsm", Target(0), epsilon=8)
    padding = np.ones(look.canvas.size, bool)
    padding[look.canvas.inside] = False
    before = look.x[0].permute(1, 2, 0).cpu().numpy()
    np.testing.assert_array_equal(e.image[padding], before[padding])
    assert np.abs(e.image - before)[~padding].min() > 0.01


def test_what_counts_as_changed() -> None:
    box = Box(1, "dog", 0.9, (0, 0, 10, 10), 4)
    look = Look(Linear(), np.zeros((8, 8, 3), np.uint8))
    look.model.info = look.model.info.__class__(**{**vars(look.model.info), "task": "detect"})
    look.prediction = Prediction("detect", boxes=(box,))
    changed = adversarial.flips(look, Target(1, anchor=4))
    moved = Box(1, "dog", 0.5, (1, 0, 10, 10), 5)
    assert not changed(Prediction("detect", boxes=(moved,)))
    assert changed(Prediction("detect", boxes=(Box(2, "cat", 0.9, (0, 0, 10, 10), 4),)))
    assert changed(Prediction("detect", candidates=(moved,)))
    towards = adversarial.flips(look, Target(1, versus=2, anchor=4))
    assert towards(Prediction("detect", boxes=(box, Box(2, "cat", 0.4, (0, 0, 10, 9), 7))))
