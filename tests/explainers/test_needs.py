"""What a method needs and what a model offers: who is served, who is refused, and in which words."""
from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from explainers import METHODS, PREFERRED, Look, explain, find_method, lacks, needs, offered, preferred
from models import nets
from models.base import BadInput, Canvas, Features, Prediction, Target
from tests.toy import Linear, Sealed

FRAME = np.full((16, 16, 3), 90, np.uint8)


def test_only_what_looks_again_needs_nothing() -> None:
    assert {name for name, m in METHODS.items() if not m.needs} == {
        "occlusion", "rise", "d_rise", "needs", "undesirable_black_box"}
    assert METHODS["eigen_cam"].needs == {"maps"} and METHODS["word_maps"].needs == {"maps", "words"}
    assert METHODS["parchgrad"].describe()["needs"] == ["gradient", "net", "statistics"]
    assert METHODS["rise"].describe()["needs"] == []


def test_statistics_are_offered_where_there_are_some(lite0, tmp_path, monkeypatch) -> None:
    assert "statistics" in offered(lite0) and "statistics" not in lite0.offers
    assert lacks(METHODS["parchgrad"], lite0) is None
    monkeypatch.setattr(needs, "STATISTICS", tmp_path)
    assert offered(lite0) == lite0.offers
    assert "there are: none" in (lacks(METHODS["parchgrad"], lite0) or "")


@pytest.mark.parametrize(("net", "names"), [
    (nn.Sequential(nn.ReLU(), nn.Softmax(1), nn.ReLU()), ["ReLU"]), (nn.Sequential(nn.Flatten()), []),
    (nn.Sequential(nn.ReLU(), nn.SiLU(), nn.GELU()), ["GELU", "ReLU", "SiLU"])])
def test_a_net_offers_relu_where_it_has_nothing_else(net: nn.Module, names: list[str]) -> None:
    assert nets.activations(net) == names and (nets.relu(net) == {"relu"}) == (names == ["ReLU"])


def test_a_word_that_nobody_knows_is_said_too() -> None:
    own = replace(METHODS["saliency"], title="Mine", needs=frozenset({"gradient", "sonar"}))
    assert lacks(own, Linear()) == ("Mine needs sonar, which Linear does not offer; "
                                    "take another method, such as occlusion or RISE")


def test_nothing_runs_before_it_is_refused() -> None:
    model = Sealed(Linear())
    sentence = "Saliency needs gradients, and Linear has none; take occlusion or RISE"
    assert lacks(METHODS["saliency"], model) == sentence
    for ask in (lambda: find_method("saliency", "classify", model),
                lambda: explain(model, np.zeros((0, 0, 3), np.uint8), "saliency")):
        with pytest.raises(BadInput, match=sentence):
            ask()
    with pytest.raises(BadInput, match="for classify there are occlusion, rise, needs, undesirable_black"):
        find_method("grad_camera", "classify", model)
    assert find_method("saliency", "classify").name == "saliency", "a task alone says nothing of a model"


def test_what_answers_first() -> None:
    model = Linear()
    assert preferred(model) == PREFERRED["classify"] == "grad_cam" and preferred(Sealed(model)) == "rise"
    model.info = replace(model.info, task="detect")
    assert preferred(model) == "odam" and preferred(Sealed(model)) == "d_rise"


def test_what_it_needs_is_found_without_a_gradient() -> None:
    """A class that lives in one corner, of a model that has no Grad-CAM: occlusion finds the corner."""
    model = Linear(16)
    model.weights.zero_()
    model.weights[1, :, :4, :4] = 1.0
    bright = np.zeros((16, 16, 3), np.uint8)
    bright[:4, :4] = 255
    e = explain(Sealed(model), bright, "needs", Target(index=1), share=7, fill="mean_colour")
    assert float(e.numbers["without the hottest"]) == pytest.approx(1 / 3, abs=0.01)
    assert float(e.numbers["confidence"]) > 0.999
    assert e.note.endswith("The map is occlusion's: Linear cannot give Grad-CAM.")
    with pytest.raises(BadInput, match="EigenCAM looks at a model's last map, and Linear shows none"):
        explain(Sealed(model), bright, "needs", Target(index=1), map="eigen_cam")


class Token(Linear):
    """The score is a class token times what the maps hold."""

    def encode(self, x: Tensor) -> Features:
        return Features((x * 1.0,), (x.mean((1, 2, 3)),))

    def logits_of(self, features: Features, target: Target) -> Tensor:
        return super().logits_of(features, target) * features.rest[0][:, None]


def test_gradients_are_those_of_the_maps_and_the_rest_stays() -> None:
    model = Token()
    look = Look(model, FRAME)
    (gradient,), score = look.feature_gradients(Target(1))
    torch.testing.assert_close(gradient[0], model.weights[1] * look.features.rest[0])
    assert float(score) == pytest.approx(float(look.model.score(look.features, Target(1))))
    assert not any(t.requires_grad for t in look.features.tensors)


class Far:
    """A model on a GPU that is none: its canvas says so."""

    info, labels = Linear().info, {0: "a"}

    def prepare(self, frame: np.ndarray) -> Canvas:
        x: Any = SimpleNamespace(is_cuda=True, device="cuda:0")
        return Canvas(x, (1, 1), (1.0, 1.0), (0.0, 0.0))

    def encode(self, x: Any) -> Features:
        return Features()

    def predict(self, features: Features, canvas: Canvas) -> Prediction:
        return Prediction("classify")


def test_milliseconds_on_a_gpu_end_when_the_work_does(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    far: Any = Far()
    look = Look(far, FRAME)
    assert waited == ["cuda:0"] * 3 and list(look.ms) == ["prepare", "encode", "predict"]
