"""Lite0 on real photographs, and torchvision's zoo through the same split."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

import models
from models import classifier, store
from models.base import BadInput, Model, Target
from tests.conftest import read_rgb

ZOO = ["resnet50", "mobilenet_v3_large", "efficientnet_v2_s"]


def test_lite0_knows_what_is_on_the_labelled_photographs(lite0: Model, data: Path) -> None:
    """0.888 on a thousand such photographs by the reference preprocessing; 300 of them lie here."""
    files = sorted((data / "imagenet").glob("*.jpg"))
    assert len(files) == 300, f"expected 300 photographs in {data / 'imagenet'}, got {len(files)}"
    hits = 0
    with torch.no_grad():
        for file in files:
            canvas = lite0.prepare(read_rgb(file))
            best = lite0.predict(lite0.encode(canvas.x), canvas).classes[0].index
            hits += best == int(file.name.partition("_")[0])
    assert hits / len(files) >= 0.87, f"{hits} of {len(files)} photographs were named rightly"


@pytest.mark.parametrize(("name", "index"), [("bus", {654, 779, 874}), ("coffee", {504, 967, 968}),
                                             ("cat", {281, 282, 285})])
def test_lite0_on_the_presets(lite0: Model, photographs: dict[str, np.ndarray], name: str,
                              index: set[int]) -> None:
    canvas = lite0.prepare(photographs[name])
    seen = lite0.predict(lite0.encode(canvas.x), canvas)
    assert seen.classes[0].index in index
    assert seen.probabilities is not None and seen.probabilities.sum() == pytest.approx(1, abs=1e-4)
    probabilities = [c.probability for c in seen.classes]
    assert probabilities == sorted(probabilities, reverse=True)
    assert seen.describe()["classes"][0]["label"] == lite0.labels[seen.classes[0].index]


@pytest.mark.parametrize("name", ZOO)
def test_the_split_net_is_the_plain_net(name: str) -> None:
    """Random weights: what the two halves say together is what torchvision's own forward says."""
    torch.manual_seed(0)
    model = classifier.zoo_net(name, weights=False)
    seen = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    x = torch.rand(2, 3, 96, 96, device=model._shift.device)
    mean, std = (torch.tensor(v, device=x.device).view(3, 1, 1) for v in (seen.mean, seen.std))
    with torch.no_grad():
        features = model.encode(x)
        plain = model.net((x - mean) / std)
        for got, expected in ((model.logits(features), plain),
                              (model.score(features, Target(index=7)), plain[:, 7]),
                              (model.score(features, Target(index=7, versus=9)), plain[:, 7] - plain[:, 9])):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert features.maps[0].ndim == 4 and features.maps[0].shape[-1] > 1
    assert model.prepare(np.zeros((300, 400, 3), np.uint8)).size == (seen.crop_size[0],) * 2


def test_the_zoo_asks_the_store_for_its_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A weights file from the store is what the net then holds."""
    saved = torchvision.models.get_model("mobilenet_v3_large", weights=None)
    torch.save(saved.state_dict(), tmp_path / "weights.pth")
    asked = []

    def fetch(name: str, progress: object) -> Path:
        asked.append(name)
        return tmp_path / "weights.pth"

    monkeypatch.setattr(store, "fetch", fetch)
    model = models.load("mobilenet_v3_large")
    assert asked == ["mobilenet_v3_large"]
    torch.testing.assert_close(model.net.classifier[0].weight.cpu(), saved.classifier[0].weight)  # type: ignore


@pytest.mark.parametrize("target", [Target(index=1000), Target(index=-1), Target(index=3, versus=1000)])
def test_a_class_that_is_not_there_is_refused_with_the_range(lite0: Model, target: Target) -> None:
    canvas = lite0.prepare(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(BadInput, match="class must be an index from 0 to 999, got"):
        lite0.score(lite0.encode(canvas.x), target)


def test_every_index_has_a_name_and_the_bird_is_not_the_machine(lite0: Model) -> None:
    assert sorted(lite0.labels) == list(range(1000))
    assert [i for i, name in lite0.labels.items() if "crane" in name.split()] == [134, 517]


def test_randomising_makes_a_copy_and_leaves_the_model_alone(lite0: Model) -> None:
    canvas = lite0.prepare(np.full((64, 64, 3), 90, np.uint8))
    with torch.no_grad():
        before = lite0.score(lite0.encode(canvas.x), Target(index=0))
        other = lite0.randomised(1.0, 3)
        again = lite0.randomised(1.0, 3)
        changed = other.score(other.encode(canvas.x), Target(index=0))
        assert changed != before
        assert again.score(again.encode(canvas.x), Target(index=0)) == changed
        assert lite0.score(lite0.encode(canvas.x), Target(index=0)) == before


def test_unknown_names_are_answered_with_the_known() -> None:
    with pytest.raises(BadInput, match="there is no model 'resnet51'; there are .*resnet50"):
        models.load("resnet51")
    with pytest.raises(BadInput, match="there is no task 'fly'; there are .*classify"):
        models.default("fly")
    assert models.default("classify") == "efficientnet-lite0"


def test_the_names_are_torchvisions_own(lite0) -> None:
    import torchvision

    meta = torchvision.models.ResNet50_Weights.IMAGENET1K_V2.meta
    assert list(lite0.labels.values()) == meta["categories"] and list(lite0.labels) == list(range(1000))
