"""The checks of an explanation: known rankings, randomised weights, random classes, boxes."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import explainers
from explainers import faith
from explainers.base import Explanation, Look
from models.base import BadInput, Canvas, Target, letterbox
from tests.toy import Linear, asked


class Share(Linear):
    """The probability is the share of light that is left: deletion of a known ranking is known on paper."""

    full = 1.0

    def logits_of(self, features, target):
        share = (features.maps[0].mean((1, 2, 3)) / self.full).clamp(1e-6, 1 - 1e-6)
        return torch.stack([share.logit(), torch.zeros_like(share)], 1)


def bright_rows(heat_follows: int) -> tuple[Look, Explanation]:
    """Row r of the frame is as bright as its number; the heat is the brightness, or its opposite."""
    frame = np.repeat(np.arange(16, dtype=np.uint8)[:, None, None] * 16, 16, 1).repeat(3, 2)
    model = Share(classes=2)
    model.full = float(frame.mean() / 255) * 1.0001
    look = Look(model, frame)
    return look, Explanation(heat_follows * look.x[0, 0].cpu().numpy())


@pytest.mark.parametrize("follows", [1, -1])
def test_deletion_area_of_a_known_ranking(follows: int) -> None:
    look, e = bright_rows(follows)
    found = faith.curves(look, e, Target(0), steps=16)
    rows = np.arange(16)[::-follows]
    left = 1 - np.concatenate([[0], np.cumsum(rows)]) / rows.sum()      # what light is left, row by row
    np.testing.assert_allclose(found.curves["deletion_black"], left, atol=1e-3)
    assert found.numbers["area deletion_black"] == pytest.approx(np.trapezoid(left, dx=1 / 16), abs=1e-3)
    assert len(found.curves["insertion_blur"]) == 17


def test_curves_start_and_end_where_they_must(lite0, photographs) -> None:
    look = Look(lite0, photographs["cat"])
    target = asked(None, look)
    e = explainers.explain(lite0, photographs["cat"], "layer_cam", target)
    found = faith.curves(look, e, target, steps=8)
    p = look.prediction.classes[0].probability
    assert found.curves["deletion_black"][0] == pytest.approx(p, abs=1e-5)
    assert found.curves["insertion_blur"][-1] == pytest.approx(p, abs=1e-5)
    assert found.curves["insertion_blur"][0] == pytest.approx(found.curves["deletion_blur"][-1], abs=1e-5)
    worse = faith.curves(look, replace(e, heat=-e.heat, method=""), target, steps=8)
    assert float(found.numbers["area insertion_blur"]) > float(worse.numbers["area insertion_blur"])
    assert float(found.numbers["area deletion_black"]) < float(worse.numbers["area deletion_black"])
    assert float(found.numbers["raw maximum over that of random classes"]) > 1 and not found.note


def test_ties_favour_no_corner(linear) -> None:
    look = Look(linear, np.zeros((16, 16, 3), np.uint8))
    first = faith.ranking(look, np.zeros((16, 16), np.float32))[:128].cpu().numpy()
    assert 90 < (first // 16).mean() * 16 < 150 and len(set(first.tolist())) == 128


def test_only_the_picture_is_ranked() -> None:
    look = Look(Linear(16, prepare=letterbox), np.zeros((8, 16, 3), np.uint8))
    ranked = faith.ranking(look, np.ones((16, 16), np.float32))
    assert sorted((ranked // 16).unique().tolist()) == list(range(4, 12))


def test_rank_correlation_is_spearmans() -> None:
    a, b = np.random.default_rng(0).integers(0, 5, (2, 12, 12)).astype(np.float32)
    assert faith.rank_correlation(a, b + a) == pytest.approx(spearmanr(a.flat, (b + a).flat).statistic)
    assert faith.rank_correlation(a, np.zeros_like(a)) == 0


def test_sanity_randomises_copies_head_first(lite0, photographs) -> None:
    look = Look(lite0, photographs["cat"])
    target = asked(None, look)
    before = {k: v.clone() for k, v in lite0.net.state_dict().items()}
    stages = list(faith.sanity(look, "layer_cam", target, {}))
    last = stages[-1]
    assert all(torch.equal(v, before[k]) for k, v in lite0.net.state_dict().items())
    assert list(last.maps) == [name for name, _ in faith.STAGES] and last.done and not stages[0].done
    assert len(last.curves["rank correlation"]) == 5 and last.curves["rank correlation"][0] == 1
    assert abs(last.curves["rank correlation"][-1]) < faith.SAME and "Passes" in last.note
    again = list(faith.sanity(look, "layer_cam", target, {}))[-1]
    assert again.curves == last.curves


def test_sanity_says_so_when_a_map_ignores_the_weights(linear) -> None:
    class Deaf(Linear):
        def randomised(self, share, seed):
            return self

    frame = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    *_, last = faith.sanity(Look(Deaf(), frame), "saliency", Target(0), {})
    assert last.curves["rank correlation"] == pytest.approx([1] * 5) and "Fails" in last.note


def test_evidence_compares_with_random_classes() -> None:
    model = Linear(classes=12)
    model.weights[3] *= 50
    frame = np.full((16, 16, 3), 200, np.uint8)
    look = Look(model, frame)
    strong, weak = (faith.evidence(look, "saliency", Target(index), {}) for index in (3, 5))
    assert strong is not None and weak is not None and strong > 20 and weak < 2
    model.weights[4] = 0
    silent = faith.curves(look, explainers.explain(model, frame, "saliency", Target(4)), Target(4), steps=4)
    assert "No evidence" in silent.note


def test_rivals_keep_the_place() -> None:
    look = Look(Linear(classes=9), np.zeros((8, 8, 3), np.uint8))
    found = faith.rivals(look, Target(2, anchor=17), 4, 0)
    assert len({t.index for t in found}) == 4 and all(t.anchor == 17 and t.index != 2 for t in found)
    words = faith.rivals(look, Target(words=(5, 6)), 3, 0)
    assert all(len(t.words or ()) == 2 and not {5, 6} & set(t.words or ()) for t in words)


def test_a_rival_word_keeps_what_it_is_compared_with() -> None:
    look = Look(Linear(classes=9), np.zeros((8, 8, 3), np.uint8))
    found = faith.rivals(look, Target(2, versus=4, anchor=17), 4, 0)
    assert len(found) == 4 and all(t.versus == 4 and t.index not in (2, 4) for t in found)
    assert faith.rivals(Look(Linear(classes=2), look.frame), Target(0, versus=1), 4, 0) == []


@pytest.mark.parametrize("part", ["left", "objectness"])
def test_a_part_of_a_box_is_judged_beside_the_same_of_other_boxes(tiny, photographs, part: str) -> None:
    look = Look(tiny, photographs["bus"])
    box, *others = (*look.prediction.boxes, *look.prediction.candidates)
    target = Target(box.index, anchor=box.anchor, part=part)
    found = faith.rivals(look, target, 3, 0)
    assert len(found) == 3 and all(t.part == part and t.anchor in [b.anchor for b in others] for t in found)
    *_, e = explainers.steps(look, "odam", target, {})
    judged = faith.curves(look, e, target, steps=4)
    assert float(judged.numbers["raw maximum over that of other boxes"]) > 0 and not judged.note
    look.prediction = replace(look.prediction, boxes=(box,), candidates=())
    assert faith.rivals(look, target, 3, 0) == [] and faith.evidence(look, "odam", target, {}) is None
    alone = faith.curves(look, e, target, steps=4)
    assert not alone.note and not any("raw maximum" in name for name in alone.numbers)


def test_energy_and_pointing_on_paper() -> None:
    heat = np.zeros((10, 10), np.float32)
    heat[2, 3], heat[7, 7], heat[0, 0] = 3, 1, -5
    # The canvas shows the frame at half its size.
    e = Explanation(heat, canvas=Canvas(torch.zeros(1, 3, 10, 10), (20, 20), (0.5, 0.5), (0.0, 0.0)))
    box = (6.0, 4.0, 8.0, 6.0)
    assert faith.energy_in_box(e, box) == pytest.approx(0.75) and faith.pointing_game(e, box)
    assert faith.in_box(e, (14.0, 14.0, 16.0, 16.0)) == {
        "energy in box": 0.25, "box over picture": pytest.approx(0.01), "hottest pixel in box": "no"}
    with pytest.raises(BadInput, match="left, top, right, bottom"):
        faith.energy_in_box(e, (5.0, 5.0, 5.0, 9.0))
