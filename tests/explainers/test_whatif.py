"""What does it need: the hottest part is the hottest, the control has its size, numbers are the page's."""
from __future__ import annotations

from math import exp

import numpy as np
import pytest
import torch

from explainers import METHODS, Look, explain
from explainers.inpaint import FILLS
from explainers.whatif import MAPS, at_random, confidence, erased, hottest, needs
from models.base import Model, Target
from tests.toy import Linear, asked


def test_the_hottest_are_the_hottest() -> None:
    heat = np.arange(100, dtype=np.float32).reshape(10, 10) - 50
    inside = (slice(0, 10), slice(0, 5))
    mask = hottest(heat, inside, 0.2)
    assert mask.sum() == 10 and not mask[:, 5:].any()
    assert heat[mask].min() >= heat[inside][~mask[inside]].max()
    assert not hottest(-np.abs(heat) - 1, inside, 0.2).any()              # nothing speaks for it
    assert hottest(np.where(heat == 42, 1.0, 0.0), (slice(0, 10), slice(0, 10)), 0.5).sum() == 1


def test_the_control_has_the_same_area_and_is_drawn_anew() -> None:
    like = np.zeros((60, 60), bool)
    like[20:30, 5:42] = True
    inside = (slice(10, 50), slice(0, 60))
    draw = torch.Generator().manual_seed(0)
    first, second = at_random(like, inside, draw), at_random(like, inside, draw)
    assert first.sum() == second.sum() == like.sum() and (first != second).any()
    assert not first[:10].any() and not first[50:].any()


@pytest.mark.parametrize("name", ("bus", "coffee", "astronaut"))
def test_erasing_what_it_needs_hurts_more_than_erasing_at_random(
        name: str, lite0: Model, photographs: dict[str, np.ndarray]) -> None:
    look = Look(lite0, photographs[name])
    target = asked(None, look)
    e = explain(lite0, photographs[name], "needs", target, share=15, fill="telea")
    n = {k: float(v) for k, v in e.numbers.items()}
    assert n["confidence"] == pytest.approx(look.prediction.classes[0].probability, abs=1e-5)
    assert n["without the hottest"] < n["without a random part"] - 0.05 and "more than a random" in e.note
    assert n["erased %"] == pytest.approx(15, abs=0.1)
    assert e.image is not None and e.images["random part"].shape == e.image.shape
    assert e.prediction is not None and e.prediction.probabilities is not None
    after = float(e.prediction.probabilities[target.index or 0])
    assert after == pytest.approx(n["without the hottest"], abs=1e-5)


def test_on_paper() -> None:
    """A linear class that lives in one corner: erase the corner, and it is one of three equals."""
    model = Linear(16)
    model.weights.zero_()
    model.weights[1, :, :4, :4] = 1.0
    bright = np.zeros((16, 16, 3), np.uint8)
    bright[:4, :4] = 255
    e = explain(model, bright, "needs", Target(index=1), map="saliency", share=7, fill="mean_colour")
    assert float(e.numbers["confidence"]) > 0.999
    assert float(e.numbers["without the hottest"]) == pytest.approx(1 / 3, abs=0.01)
    assert float(e.numbers["without a random part"]) > 0.9 and "more than a random" in e.note
    model.weights.zero_()
    e = explain(model, bright, "needs", Target(index=1))
    assert "empty" in e.note and e.image is None


def test_only_the_mask_is_filled(lite0: Model, photographs: dict[str, np.ndarray]) -> None:
    look = Look(lite0, photographs["cat"])
    mask = np.zeros(look.canvas.size, bool)
    mask[50:90, 60:120] = True
    for name in FILLS:
        x = erased(look, mask, name)
        assert (x[0, :, ~mask] == look.x[0, :, ~mask]).all() and (x[0, :, mask] != look.x[0, :, mask]).any()


def test_confidences_are_those_on_the_page(captioner: Model, photographs: dict[str, np.ndarray]) -> None:
    look = Look(captioner, photographs["cat"])
    for position, word in enumerate(look.prediction.words):
        target = asked(f"word:{position}", look)
        assert confidence(look, target, look.x) == pytest.approx(word.probability, abs=1e-4)
    logs = [np.log(w.probability) for w in look.prediction.words]
    whole = confidence(look, asked("caption", look), look.x)
    assert whole == pytest.approx(exp(np.mean(logs)), rel=1e-3)


def test_every_map_it_offers_is_there() -> None:
    for name in MAPS:
        assert METHODS[name].tasks == METHODS["needs"].tasks
    assert METHODS["needs"].run is needs and METHODS["needs"].group == "what if"
    assert METHODS["undesirable"].group == METHODS["undesirable_black_box"].group == "what if"
