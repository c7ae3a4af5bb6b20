"""What is told of a score is the model's own probability: nobody guesses whether it is a log or a logit."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from explainers import Look, pixels, whatif
from models.base import SIDES, BadInput, Model, Target
from models.yolov3 import YoloV3Tiny


@pytest.fixture(scope="module")
def bus(tiny: YoloV3Tiny, photographs: dict[str, np.ndarray]) -> Look:
    return Look(tiny, photographs["bus"])


def confidences(look: Look) -> torch.Tensor:
    """Of every candidate of YOLOv3-tiny in the order of their numbers, the best class's confidence."""
    seen = []
    assert isinstance(look.model, YoloV3Tiny)
    coarse, fine = look.features.maps
    for out in look.model.net.heads(coarse, fine):
        raw = out[0].view(3, 85, -1).transpose(1, 2).reshape(-1, 85)
        seen.append(raw[:, 4].sigmoid() * raw[:, 5:].sigmoid().amax(1))
    return torch.cat(seen)


def test_a_sure_candidate_that_was_suppressed_is_told_as_sure(bus: Look) -> None:
    """Its log-confidence is near zero, whose logistic would be a half."""
    shown = [b.anchor for b in (*bus.prediction.boxes, *bus.prediction.candidates)]
    every = confidences(bus)
    anchor = next(a for a in every.argsort(descending=True).tolist() if a not in shown)
    p = float(every[anchor])
    assert p > 0.6
    target = Target(index=int(bus.model.logits_of(bus.features, Target(0, anchor=anchor))[0].argmax()),
                    anchor=anchor)
    assert whatif.confidence(bus, target, bus.x) == pytest.approx(p, abs=1e-4)
    assert float(pixels.probability(bus, target)(bus.features)[0]) == pytest.approx(p, abs=1e-5)


def test_a_random_net_is_told_on_its_own_scale(bus: Look) -> None:
    """As the check with random weights does it: the prediction stays the real one."""
    other = Look(bus.model.randomised(0.0, 1), bus.frame, canvas=bus.canvas)
    other.prediction = bus.prediction
    for box in bus.prediction.boxes:
        target = Target(index=box.index, anchor=box.anchor)
        expected = float(other.model.score(other.features, target).exp()[0])
        weigh = pixels.probability(other, target)
        assert float(weigh(other.features)[0]) == pytest.approx(expected, abs=1e-6)
        assert whatif.confidence(other, target, other.x) == pytest.approx(expected, abs=1e-6)


def test_a_box_shows_its_confidence_and_its_rival_a_share(bus: Look) -> None:
    for box in bus.prediction.boxes:
        for choice in box.choices:
            target = Target(index=choice.index, anchor=box.anchor)
            p = float(bus.model.probability(bus.features, target)[0])
            assert p == pytest.approx(choice.probability, abs=1e-5)
        against = Target(index=5, versus=22, anchor=box.anchor)
        score = bus.model.score(bus.features, against)
        assert torch.equal(bus.model.probability(bus.features, against), score.sigmoid())
        objectness = Target(index=box.index, anchor=box.anchor, part="objectness")
        assert box.confidence < float(bus.model.probability(bus.features, objectness)[0]) <= 1


def test_a_side_has_a_place_and_no_confidence(bus: Look) -> None:
    for part in SIDES:
        target = Target(index=0, anchor=bus.prediction.boxes[0].anchor, part=part)
        with pytest.raises(BadInput, match=f"a box's {part} side has no confidence; ask about its class"):
            bus.model.probability(bus.features, target)
        assert float(pixels.probability(bus, target)(bus.features)[0]) == 1
        black = bus.model.encode(pixels.hidden(bus, "black"))
        assert 0 <= float(pixels.probability(bus, target)(black)[0]) < 1


def test_a_class_shows_its_share(lite0: Model, photographs: dict[str, np.ndarray]) -> None:
    look = Look(lite0, photographs["cat"])
    best = look.prediction.classes
    for choice in best:
        p = lite0.probability(look.features, Target(index=choice.index))
        assert float(p[0]) == pytest.approx(choice.probability, abs=1e-6)
    share = float(lite0.probability(look.features, Target(best[0].index, versus=best[1].index))[0])
    assert share == pytest.approx(best[0].probability / (best[0].probability + best[1].probability), abs=1e-5)
    with pytest.raises(BadInput, match="class must be an index"):
        lite0.probability(look.features, Target(index=1000))
