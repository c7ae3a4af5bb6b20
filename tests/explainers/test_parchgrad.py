"""ParchGrad: a two-layer net computed by hand, the formula, the statistics and their command."""
from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import explainers
from explainers import needs
from explainers import parchgrad as room
from explainers.base import Look
from models.base import BadInput, Features, Target
from tests.toy import Linear


class TwoLayers(Linear):
    """Two 1x1 convolutions: the first makes channels red and 2 x green, the second adds them up."""

    offers = Linear.offers | {"net"}

    def __init__(self) -> None:
        super().__init__(4)
        self.net = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False))
        self.net[0].weight.data = torch.tensor([[1., 0, 0], [0, 2, 0]])[:, :, None, None]
        self.net[1].weight.data = torch.tensor([[[[3.]], [[5.]]]])
        self.net.requires_grad_(False)
        self.at = torch.zeros(4, 4)
        self.at[1, 2] = 1                                # the score reads one cell only

    def encode(self, x):
        return Features((self.net.to(x.device)(x),))

    def score(self, features, target):
        return (features.maps[0][:, 0] * self.at.to(features.maps[0])).sum((1, 2))

    def logits_of(self, features, target):
        return self.score(features, target)[:, None].repeat(1, 3)


def statistics(**channels: tuple[list[float], list[float]]) -> room.Statistics:
    found: room.Statistics = {"count": np.asarray(10)}
    for layer, (mean, deviation) in channels.items():
        found |= {f"{layer[1:]}/mean": np.asarray(mean), f"{layer[1:]}/deviation": np.asarray(deviation)}
    return found


def test_two_layers_by_hand() -> None:
    model = TwoLayers()
    frame = np.zeros((4, 4, 3), np.uint8)
    frame[..., 0] = 255                                  # channel 0 averages 1, channel 1 averages 0
    look = Look(model, frame)
    usual = statistics(_0=([0.5, 0.5], [0.1, 0.1]), _1=([9.0], [1.0]))
    forward = room.partitioned(look, Target(0), room.by_picture(usual, 0.0), depth=1.0)
    x = look.x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(forward(x).sum(), x)
    # Layer 1 has no channel in H and stays. In layer 0, H is channel 0 with gradient 3 at the cell, L
    # channel 1 with 5: their variances over space are as 9 to 25, so H is scaled by sqrt(34/9) and L goes.
    assert gradient[0, :, 1, 2].tolist() == pytest.approx([3 * (34 / 9) ** 0.5, 0, 0], rel=1e-5)
    assert float(gradient.abs().sum()) == pytest.approx(3 * (34 / 9) ** 0.5, rel=1e-5)


def test_partition_keeps_the_variance_of_the_sum() -> None:
    gradient = torch.randn(2, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    keep = torch.tensor([[1, 0, 1, 0, 0, 1], [0, 0, 0, 0, 0, 0]]).bool()
    out = room.partition(gradient, keep)
    high, low = (gradient[0, keep[0] == on].sum(0).var(unbiased=False) for on in (True, False))
    assert float(out[0].sum(0).var(unbiased=False)) == pytest.approx(float(high + low), rel=1e-4)
    assert not out[0, ~keep[0]].any() and torch.equal(out[1], gradient[1])


def test_by_class_is_a_t_test() -> None:
    known = statistics(_a=([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]))
    known |= {"count": np.asarray(100), "class 7/count": np.asarray(25),
              "class 7/a/mean": np.asarray([1.5, 1.3, 0.0]), "class 7/a/deviation": np.asarray([1, 1, 1])}
    # The error is sqrt(1/25 + 1/100) = 0.2236: t is 2.2, 1.3 and -4.5, and 1.645 is significant.
    assert room.by_class(known, 7)("a", torch.zeros(2, 3)).tolist() == [[True, False, False]] * 2
    with pytest.raises(BadInput, match=r"no class 8, only \[7\]"):
        room.by_class(known, 8)


def test_it_composes_and_prunes(lite0, photographs) -> None:
    cat = photographs["cat"]
    plain = explainers.explain(lite0, cat, "saliency").heat
    pruned = explainers.explain(lite0, cat, "parchgrad").heat
    assert pruned.shape == plain.shape and not np.allclose(pruned, plain, atol=1e-3)
    everything = explainers.explain(lite0, cat, "parchgrad", threshold=-2.0, depth=0.05).heat
    assert np.corrcoef(everything.flat, plain.flat)[0, 1] > np.corrcoef(pruned.flat, plain.flat)[0, 1]


def test_models_without_statistics_are_refused_with_the_command() -> None:
    with pytest.raises(BadInput, match="python -m explainers.parchgrad --data FOLDER --model linear"):
        explainers.explain(TwoLayers(), np.zeros((8, 8, 3), np.uint8), "parchgrad", Target(0))


def test_the_command_measures_pictures_and_classes(tmp_path, monkeypatch, capsys) -> None:
    model, levels = TwoLayers(), {"007_a": 51, "007_b": 153, "008_c": 255}
    for name, level in levels.items():
        picture = np.zeros((4, 4, 3), np.uint8)
        picture[..., 2] = level                          # red, as OpenCV counts colours
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
    monkeypatch.setattr(needs, "STATISTICS", tmp_path / "out")
    monkeypatch.setattr("models.load", lambda name: model)
    assert room.main(["--data", str(tmp_path), "--model", "two"]) == 0
    found = room.statistics_of("two")
    room.statistics_of.cache_clear()
    shares = np.array(list(levels.values())) / 255
    np.testing.assert_allclose(found["0/mean"], [shares.mean(), 0], atol=1e-3)
    np.testing.assert_allclose(found["0/deviation"], [shares.std(), 0], atol=1e-3)
    np.testing.assert_allclose(found["class 7/0/mean"], [0.4, 0], atol=1e-3)
    assert found["class 7/count"] == 2 and "class 8/count" not in found
    assert room.main(["--data", str(tmp_path / "out"), "--model", "two"]) == 1
    assert "no picture" in capsys.readouterr().err
