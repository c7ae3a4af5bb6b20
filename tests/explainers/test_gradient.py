"""Gradient methods: closed forms on linear and quadratic models, captum on the real one."""
from __future__ import annotations

import captum.attr
import numpy as np
import pytest
import torch

import explainers
from explainers import gradient
from explainers.base import Look, steps
from models.base import BadInput, Target
from models.classifier import zoo_net
from tests.toy import Linear, asked


class Quadratic(Linear):
    """score = sum(weights * x^2): integrated gradients from black are exactly weights * x^2."""

    def score(self, features, target):
        return super().score(features.each(torch.square), target)


@pytest.fixture
def frame() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def test_saliency_of_a_linear_model_is_its_weights(linear, frame) -> None:
    heat = explainers.explain(linear, frame, "saliency", Target(1)).heat
    np.testing.assert_allclose(heat, linear.weights[1].abs().amax(0).cpu(), atol=1e-6)


def test_input_x_gradient_of_a_linear_model_adds_up_to_the_score(linear, frame) -> None:
    look = Look(linear, frame)
    heat = explainers.explain(linear, frame, "input_x_gradient", Target(1)).heat
    assert heat.sum() == pytest.approx(float(linear.score(look.features, Target(1))), abs=1e-4)


def test_smooth_grad_of_a_linear_model_is_its_saliency(linear, frame) -> None:
    smooth = explainers.explain(linear, frame, "smooth_grad", Target(1), samples=4).heat
    plain = explainers.explain(linear, frame, "saliency", Target(1)).heat
    np.testing.assert_allclose(smooth, plain, atol=1e-6)


@pytest.mark.parametrize("count", [5, 12, 25])
def test_integrated_gradients_of_a_quadratic(frame, count: int) -> None:
    model = Quadratic()
    e = explainers.explain(model, frame, "integrated_gradients", Target(2), steps=count)
    x = Look(model, frame).x[0]
    np.testing.assert_allclose(e.heat, (model.weights[2] * x ** 2).sum(0).cpu(), atol=1e-5)
    assert float(e.numbers["completeness error"]) < 1e-3 and not e.note


def test_both_baselines_are_averaged(frame) -> None:
    model = Quadratic()
    black, blur, both = (explainers.explain(model, frame, "integrated_gradients", Target(0), baseline=b).heat
                         for b in ("black", "blur", "both"))
    np.testing.assert_allclose(both, (black + blur) / 2, atol=1e-5)
    assert np.abs(black - blur).max() > 1e-3


def test_a_preview_comes_before_the_final_map(lite0, photographs) -> None:
    look = Look(lite0, photographs["cat"])
    target = asked(None, look)
    seen = list(steps(look, "integrated_gradients", target, {"steps": 10}))
    assert [e.done for e in seen] == [False, True]
    half, full = (e.heat.flatten() for e in seen)
    assert np.corrcoef(half, full)[0, 1] > 0.6


def test_too_few_steps_are_admitted(lite0, photographs) -> None:
    e = explainers.explain(lite0, photographs["bus"], "integrated_gradients", "class:779/versus:1", steps=5)
    error = float(e.numbers["completeness error"])
    assert ("not accounted for" in e.note) == (error > 0.1)


def test_equal_to_captum(lite0, photographs) -> None:
    look = Look(lite0, photographs["cat"])
    target = asked(None, look)
    forward, x = look.forward(target), look.x.clone()
    inside = look.canvas.inside

    def ours(name: str, **params) -> np.ndarray:
        *_, last = steps(look, name, target, params)
        return last.heat[inside]

    def leaf() -> torch.Tensor:
        return x.clone().requires_grad_()

    expected = captum.attr.Saliency(forward).attribute(leaf()).amax(1)[0]
    np.testing.assert_allclose(ours("saliency"), expected.cpu(), atol=1e-4)
    expected = captum.attr.InputXGradient(forward).attribute(leaf()).sum(1)[0]
    np.testing.assert_allclose(ours("input_x_gradient"), expected.detach().cpu(), atol=1e-4)
    expected = captum.attr.IntegratedGradients(forward).attribute(
        leaf(), baselines=torch.zeros_like(x), n_steps=7, internal_batch_size=7).sum(1)[0]
    np.testing.assert_allclose(ours("integrated_gradients", steps=7), expected.detach().cpu(), atol=1e-4)
    torch.manual_seed(3000)
    expected = captum.attr.NoiseTunnel(captum.attr.Saliency(forward)).attribute(
        leaf(), nt_samples=4, stdevs=0.15, abs=False).abs().amax(1)[0]
    np.testing.assert_allclose(ours("smooth_grad", samples=4, seed=3), expected.detach().cpu(), atol=1e-4)


def test_noise_leaves_the_global_random_numbers_alone(linear, frame) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    explainers.explain(linear, frame, "smooth_grad", Target(0), samples=4)
    assert torch.equal(torch.rand(3), expected)


def test_guided_backpropagation_equals_captum_and_refuses_other_activations(lite0, photographs) -> None:
    small = photographs["cat"]
    resnet = zoo_net("resnet50", weights=False)
    look = Look(resnet, small)
    inner = captum.attr.GuidedBackprop(gradient._Scored(resnet.net, look.forward(Target(5))))
    expected = inner.attribute(look.x.clone().requires_grad_()).sum(1)[0].cpu().numpy()
    before = resnet.logits(look.features)
    e = gradient.guided_backpropagation(look, Target(5))
    np.testing.assert_allclose(e.heat, expected, atol=1e-4 * np.abs(expected).max())
    assert torch.equal(resnet.logits(resnet.encode(look.x)), before) and "sanity check" in e.note
    assert not np.allclose(e.heat, explainers.explain(resnet, small, "input_x_gradient", Target(5)).heat)
    with pytest.raises(BadInput, match="ReLU6"):
        explainers.explain(lite0, small, "guided_backpropagation")
    with pytest.raises(BadInput, match="torch net"):
        explainers.explain(Linear(), small, "guided_backpropagation")
