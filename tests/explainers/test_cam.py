"""Class activation maps: hand-set features, and pytorch-grad-cam on the same net."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import pytorch_grad_cam as oracle
import torch
from captum.attr import LayerGradCam
from torch import nn

import explainers
from explainers import cam
from explainers.base import Look
from models.base import Features, Model, Net, Target
from tests.toy import Linear, asked


class Hand(Linear):
    """Two 2x2 channels that do not depend on the picture; the score is a weighted sum of them."""

    features = torch.tensor([[[[1., 2.], [3., 0.]], [[0., 1.], [1., 4.]]]])
    gradients = torch.tensor([[[[1., -1.], [2., 0.]], [[0., 0.], [0., -3.]]]])

    def encode(self, x):
        return Features((self.features.to(x) + 0 * x.sum(),))

    def score(self, features, target):
        return (features.maps[0] * self.gradients.to(features.maps[0])).sum((1, 2, 3))

    def logits_of(self, features, target):
        return self.score(features, target)[:, None].repeat(1, 3)


def cells(heat: np.ndarray) -> np.ndarray:
    """What the corners of the 16x16 canvas show: the four cells."""
    return heat[[0, 0, -1, -1], [0, -1, 0, -1]].reshape(2, 2)


@pytest.mark.parametrize(("method", "expected"), [
    ("grad_cam", [[0.5, 0.25], [0.75, 0]]),                    # weights 0.5 and -0.75
    ("counterfactual_grad_cam", [[0, 0], [0, 3]]),
    ("layer_cam", [[1, 0], [6, 0]]),
    # 1/(2+6) and, where the gradient is 2, 4/(8+48), the latter twice as steep.
    ("grad_cam_plus_plus", [[x * (1 / 8 + 2 * 4 / 56) for x in row] for row in [[1, 2], [3, 0]]]),
])
def test_hand_set_features(method: str, expected: list[list[float]]) -> None:
    frame = np.zeros((16, 16, 3), np.uint8)
    heat = explainers.explain(Hand(), frame, method, Target(0)).heat
    np.testing.assert_allclose(cells(heat), expected, atol=1e-5)


def test_odam_is_activation_times_gradient_cell_by_cell() -> None:
    model = Hand()
    model.info = replace(model.info, task="detect")
    look = Look(model, np.zeros((16, 16, 3), np.uint8))
    np.testing.assert_allclose(cells(cam.odam(look, Target(0, anchor=0)).heat), [[1, 0], [6, 0]], atol=1e-6)


class Whole(nn.Module):
    """The classifier as one module that hooks can look into, and its last map as a layer of it."""

    def __init__(self, model: Model):
        super().__init__()
        assert isinstance(model, Net)
        self.net, self.last = model.net, nn.Identity()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.logits_of(Features((self.last(self.model.encode(x).maps[0]),)), Target(0))


@pytest.mark.parametrize(("method", "theirs"), [
    ("grad_cam", oracle.GradCAM), ("grad_cam_plus_plus", oracle.GradCAMPlusPlus),
    ("layer_cam", oracle.LayerCAM), ("eigen_cam", oracle.EigenCAM)])
def test_equal_to_pytorch_grad_cam_before_its_normalising(method, theirs, lite0, photographs) -> None:
    look = Look(lite0, photographs["cat"])
    target = asked(None, look)
    whole = Whole(lite0)
    raw = {}

    class Kept(theirs):
        def get_cam_image(self, *args, **kwargs):
            raw["map"] = super().get_cam_image(*args, **kwargs)
            return raw["map"]

    with Kept(model=whole, target_layers=[whole.last]) as other:
        other(look.x.clone().requires_grad_(),
              [oracle.utils.model_targets.ClassifierOutputTarget(target.index)])
    expected = raw["map"][0]
    busy = look.features.maps[0][0].square().sum(0).numpy()
    if method == "eigen_cam" and float((expected * busy).sum()) < 0:
        expected = -expected                       # a principal direction has no sign of its own
    expected = cam.on_canvas(torch.tensor(np.maximum(expected, 0))[None, None].float(), look.canvas.size)
    ours = explainers.explain(lite0, photographs["cat"], method).heat
    np.testing.assert_allclose(ours, expected, atol=1e-4 * max(1, np.abs(expected).max()))


def test_grad_cam_equal_to_captum(lite0, photographs) -> None:
    look = Look(lite0, photographs["cat"])
    target = asked(None, look)
    whole = Whole(lite0)
    raw = LayerGradCam(whole, whole.last).attribute(
        look.x.clone().requires_grad_(), target=target.index, relu_attributions=True)
    ours = cam.grad_cam(look, target).heat
    np.testing.assert_allclose(ours, cam.on_canvas(raw.detach(), look.canvas.size), atol=1e-4)


def test_eigen_cam_has_one_sign(lite0, photographs) -> None:
    maps = [explainers.explain(lite0, photographs["cat"], "eigen_cam", Target(i)).heat for i in (1, 2)]
    np.testing.assert_array_equal(maps[0], maps[1])
    busy = (Look(lite0, photographs["cat"]).features.maps[0] ** 2).sum(1, keepdim=True)
    assert np.corrcoef(maps[0].flat, cam.on_canvas(busy, maps[0].shape).flat)[0, 1] > 0.5
    for sign in (1, -1):                            # busy is what is far from zero, on either side
        twice = cam._principal(torch.tensor([[[[0., 1.], [0., 9.]], [[0., 1.], [0., 9.]]]]) * sign)
        assert twice[0, 0, 1, 1] > 0


def test_versus_is_the_difference_of_both_scores(linear) -> None:
    frame = np.full((16, 16, 3), 90, np.uint8)
    a, b, both = (explainers.explain(linear, frame, "input_x_gradient", t).heat
                  for t in (Target(0), Target(1), Target(0, versus=1)))
    np.testing.assert_allclose(both, a - b, atol=1e-6)
