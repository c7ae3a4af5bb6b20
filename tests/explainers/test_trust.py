"""The trust card: real boxes are supported, wrong labels on them are not."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from explainers import Look, steps, trust
from explainers.base import Explanation
from models.base import BadInput, Box, Prediction, Target
from models.yolov3 import YoloV3Tiny
from tests.toy import Linear, asked


@pytest.fixture(scope="module")
def bus(tiny: YoloV3Tiny, photographs: dict[str, np.ndarray]) -> Look:
    return Look(tiny, photographs["bus"])


def card(look: Look, text: str, **params: int) -> Iterator[Explanation]:
    return steps(look, "trust_card", asked(text, look), {"steps": 5, "randoms": 24, **params})


def judged(look: Look, text: str) -> Explanation:
    """The card as soon as it has a verdict."""
    return next(e for e in card(look, text) if "verdict" in e.numbers)


def test_the_verdict_by_its_rules() -> None:
    assert trust.verdict(inside=10, share=0.9, level=4) == "supported"
    assert trust.verdict(inside=10, share=0.4, level=4) == "weakly supported"
    assert trust.verdict(inside=7, share=0.9, level=4) == "weakly supported"
    assert trust.verdict(inside=4, share=1.0, level=4) == "not supported"
    assert trust.verdict(inside=0, share=0.0, level=0) == "not supported"


def test_a_card_holds_all_it_promises_and_separates_bus_from_giraffe(bus: Look) -> None:
    *early, e = card(bus, "box:2/versus:giraffe")
    half = [s for s in early if s.progress < 0.5]
    assert half[-1].numbers["verdict"] == "supported", "the verdict comes before the slow numbers"
    assert [s.progress for s in early] == sorted(s.progress for s in early) and e.done
    n = e.numbers
    assert (n["class"], n["verdict"]) == ("bus", "supported")
    assert (n["rival class"], n["rival verdict"]) == ("giraffe", "not supported")
    assert n["confidence"] == pytest.approx(bus.prediction.boxes[2].confidence, abs=1e-6)
    figure = {name: float(value) for name, value in n.items() if isinstance(value, float)}
    assert figure["energy in box"] > 0.8
    assert figure["evidence in box"] > 5 * figure["rival evidence in box"]
    assert 0 <= figure["deletion score"] < figure["confidence"] and figure["completeness error"] >= 0
    assert list(e.maps) == ["rival giraffe"] and e.maps["rival giraffe"].shape == e.heat.shape
    assert "random classes" in e.note and "this frame" in e.note
    assert set(e.curves) == {"deletion_black", "deletion_blur", "insertion_blur"}


@pytest.mark.parametrize("name", ["bus", "zidane"])
def test_every_real_box_beats_wrong_labels_on_it(tiny: YoloV3Tiny, photographs: dict[str, np.ndarray],
                                                 name: str) -> None:
    look = Look(tiny, photographs[name])
    wrong = []
    for number, box in enumerate(look.prediction.boxes):
        first = judged(look, f"box:{number}/versus:giraffe")
        print(name, box.label, first.numbers["verdict"], "giraffe", first.numbers["rival verdict"])
        assert first.numbers["verdict"] != "not supported", first.note
        wrong.append(first.numbers["rival verdict"])
    assert wrong.count("not supported") == len(wrong)


def test_evidence_does_not_shrink_as_confidence_grows(bus: Look) -> None:
    """ODAM of log p times 1/(1-p) is ODAM of the log-odds, whatever p is."""
    sure = max(bus.prediction.boxes, key=lambda b: b.confidence)
    target = Target(index=sure.index, anchor=sure.anchor)
    *_, plain = steps(bus, "odam", target, {})
    odds = trust._in_log_odds(bus, target, "odam")
    assert np.allclose(odds.heat, plain.heat / (1 - sure.confidence), rtol=1e-3)


def test_log_odds_are_those_of_the_probability_whatever_the_score_is(bus: Look, linear: Linear) -> None:
    logits = Look(linear, np.full((16, 16, 3), 90, np.uint8))
    box = bus.prediction.boxes[0]
    for look, target in ((bus, Target(box.index, anchor=box.anchor)), (logits, Target(1))):
        p = float(look.model.probability(look.features, target)[0])
        score = float(trust.LogOdds(look.model).score(look.features, target)[0])
        assert score == pytest.approx(np.log(p / (1 - p)), abs=1e-3)


@pytest.mark.parametrize("classes", [1, 2])
def test_a_detector_of_too_few_classes_gets_a_sentence(classes: int) -> None:
    look = Look(Linear(classes=classes), np.full((16, 16, 3), 90, np.uint8))
    look.model.info = replace(look.model.info, task="detect")
    look.prediction = Prediction("detect", boxes=(Box(0, "class 0", 0.9, (0, 0, 9, 9), 0),))
    with pytest.raises(BadInput, match=f"of classes Linear has only {classes}"):
        next(card(look, "box:0"))


def test_the_rival_is_the_next_best_class_unless_named(bus: Look) -> None:
    first = judged(bus, "box:2")
    assert first.numbers["rival class"] == bus.prediction.boxes[2].choices[1].label
    turned = judged(bus, "box:2/class:giraffe")
    assert (turned.numbers["class"], turned.numbers["rival class"]) == ("giraffe", "bus")
    assert turned.numbers["verdict"] == "not supported"


def test_a_candidate_that_is_no_box_has_its_place_from_its_sides(bus: Look) -> None:
    known = bus.prediction.boxes[0]
    anew = Look(bus.model, bus.frame, {"threshold": 0.95})
    object.__setattr__(anew.prediction, "candidates", ())
    kept = [b for b in anew.prediction.boxes if b.anchor != known.anchor]
    object.__setattr__(anew.prediction, "boxes", tuple(kept))
    assert np.allclose(trust.box_of(anew, Target(index=0, anchor=known.anchor)), known.box, atol=2)


@pytest.mark.parametrize("text", ["box:0/side:left", "box:0/objectness"])
def test_only_classes_have_a_card(bus: Look, text: str) -> None:
    with pytest.raises(BadInput, match="about a class of a box"):
        next(card(bus, text))
