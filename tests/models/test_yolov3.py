"""YOLOv3-tiny: against an independent reading of the same file, and what its boxes and scores promise."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import explainers
from explainers import Look, steps
from models import boxes, store, yolov3
from models.base import SIDES, BadInput, Target
from models.darknet import read_convolutions
from models.yolov3 import YoloV3Tiny
from tests.models import darknet_reference as reference
from tests.toy import asked

Photographs = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def bus(tiny: YoloV3Tiny, photographs: Photographs) -> Look:
    return Look(tiny, photographs["bus"])


def labels(look: Look) -> list[str]:
    return [b.label for b in look.prediction.boxes]


@pytest.mark.parametrize("name", ["bus", "zidane"])
def test_boxes_and_scores_are_those_of_an_independent_reading(
        tiny: YoloV3Tiny, photographs: Photographs, name: str) -> None:
    look = Look(tiny, photographs[name])
    corners, confidences = reference.detect(store.fetch("yolov3-tiny.weights"), look.x[0].cpu().numpy())
    kept = reference.suppressed(corners, confidences, 0.3, 0.35)
    assert [b.anchor for b in look.prediction.boxes] == kept
    height, width = look.frame.shape[:2]
    for box, anchor in zip(look.prediction.boxes, kept, strict=True):
        expected = look.canvas.to_frame(corners[anchor][None])[0].clip(0, [width, height, width, height])
        assert np.abs(np.array(box.box) - expected).max() < 1
        assert abs(box.confidence - confidences[anchor].max()) < 1e-3
        assert [c.index for c in box.choices[:2]] == (-confidences[anchor]).argsort()[:2].tolist()


def test_it_finds_the_bus_three_people_and_two_people(tiny: YoloV3Tiny, bus: Look,
                                                      photographs: Photographs) -> None:
    assert sorted(labels(bus)) == ["bus", "person", "person", "person"]
    assert labels(Look(tiny, photographs["zidane"])).count("person") == 2


def test_the_score_is_the_log_of_the_confidence_shown(bus: Look) -> None:
    for box in (*bus.prediction.boxes, *bus.prediction.candidates):
        score = float(bus.model.score(bus.features, Target(index=box.index, anchor=box.anchor))[0])
        assert abs(np.exp(score) - box.confidence) < 1e-6
        assert box.choices[0].probability == box.confidence


def test_one_cell_is_computed_exactly_as_in_the_whole_map(tiny: YoloV3Tiny, bus: Look) -> None:
    coarse, fine = bus.features.maps
    whole = tiny.net.heads(coarse, fine)
    for scale, cells in enumerate(yolov3.CELLS):
        for row, column in [(0, 0), (0, cells - 1), (cells - 1, 0), (cells - 1, cells - 1), (3, 5), (6, 4)]:
            one = tiny.net.head_at(coarse, fine, yolov3.Place(scale, 0, row, column))
            assert torch.allclose(one, whole[scale][:, :, row, column], atol=1e-4)


def test_every_candidate_number_leads_back_to_its_place() -> None:
    seen = {yolov3.place_of(anchor) for anchor in range(sum(yolov3.COUNTS))}
    assert len(seen) == 3 * (13 * 13 + 26 * 26)
    assert yolov3.place_of(507) == yolov3.Place(1, 0, 0, 0)
    for wrong in (None, -1, 2535):
        with pytest.raises(BadInput, match="candidates 0 to 2534"):
            yolov3.place_of(wrong)


def test_sides_are_the_boxs_own_and_versus_is_a_difference(bus: Look) -> None:
    for box in bus.prediction.boxes:
        target = Target(index=box.index, anchor=box.anchor)
        sides = [float(bus.model.score(bus.features, replace(target, part=part))[0]) for part in SIDES]
        height, width = bus.frame.shape[:2]
        frame = bus.canvas.to_frame(np.array([sides]))[0].clip(0, [width, height, width, height])
        assert np.allclose(frame, box.box, atol=0.01)
        both = [float(bus.model.score(bus.features, replace(target, index=i))[0]) for i in (5, 22)]
        against = float(bus.model.score(bus.features, replace(target, index=5, versus=22))[0])
        assert against == pytest.approx(both[0] - both[1], abs=1e-5)


def test_scores_are_batched_and_class_numbers_hold_the_score(tiny: YoloV3Tiny, bus: Look) -> None:
    target = asked("box:0", bus)
    features = tiny.encode(torch.cat([bus.x, bus.x.flip(3), bus.x * 0]))
    score, numbers = tiny.score(features, target), tiny.logits_of(features, target)
    assert score.shape == (3,) and numbers.shape == (3, 80)
    assert torch.equal(numbers[:, target.index], score)
    assert score[0] > score[2]
    objectness = tiny.score(features, replace(target, part="objectness"))
    assert (objectness > score).all()


@pytest.mark.parametrize("text", ["box:0", "box:1/class:zebra", "box:2/class:zebra/versus:giraffe",
                                  "box:0/side:left", "box:2/objectness", "candidate:3", "near:0.5,0.5"])
def test_every_target_text_gives_a_map(bus: Look, text: str) -> None:
    *_, e = steps(bus, "odam", asked(text, bus), {})
    assert e.heat.shape == (416, 416) and np.isfinite(e.heat).all()


def test_wrong_targets_are_refused_in_words(bus: Look) -> None:
    for text, words in [("box:99", "from 0 to 3"), ("box:0/class:zebu", "no class is called"),
                        ("box:0/class:80", "from 0 to 79"), ("near:here", "shares of the picture")]:
        with pytest.raises(BadInput, match=words):
            asked(text, bus)
    for target, words in [(Target(index=80, anchor=3), "0 to 79"), (Target(anchor=3), "needs a class"),
                          (Target(index=0, anchor=3, part="middle"), "left, top, right, bottom")]:
        with pytest.raises(BadInput, match=words):
            bus.model.score(bus.features, target)


def test_explaining_leaves_the_prediction_untouched(tiny: YoloV3Tiny, photographs: Photographs) -> None:
    before = Look(tiny, photographs["bus"])
    kept = [f.clone() for f in before.features.maps]
    for method in ("odam", "saliency", "grad_cam"):
        *_, e = steps(before, method, asked("box:1", before), {})
        assert not e.empty
    assert all(torch.equal(a, b) for a, b in zip(kept, before.features.maps, strict=True))
    after = Look(tiny, photographs["bus"])
    assert after.prediction.describe() == before.prediction.describe()
    assert all(p.grad is None and not p.requires_grad for p in tiny.net.parameters())


def test_two_boxes_of_one_class_get_two_maps(bus: Look) -> None:
    people = [i for i, b in enumerate(bus.prediction.boxes) if b.label == "person"][:2]
    maps = [list(steps(bus, "odam", asked(f"box:{i}", bus), {}))[-1] for i in people]
    for number, e in zip(people, maps, strict=True):
        inside = explainers.faith.energy_in_box(e, bus.prediction.boxes[number].box)
        assert inside > 0.8, f"box {number}: {inside:.2f} of its map is inside"
    assert np.minimum(maps[0].heat, maps[1].heat).sum() < 0.01 * maps[0].heat.sum()


@pytest.mark.parametrize("shape", [(640, 360), (360, 640), (333, 517), (1, 50), (50, 1), (1, 1)])
def test_letterbox_is_inverted_and_padding_gets_no_heat(tiny: YoloV3Tiny, shape: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    look = Look(tiny, frame, {"threshold": 0.05})
    points = np.random.default_rng(1).uniform(0, min(shape), (20, 4))
    assert np.allclose(look.canvas.to_frame(look.canvas.to_canvas(points)), points, atol=1e-9)
    assert np.allclose(look.canvas.area, (0, 0, shape[1], shape[0]), atol=1e-9)
    e = list(steps(look, "saliency", Target(index=0, anchor=1000), {}))[-1]
    outside = np.ones(look.canvas.size, bool)
    outside[look.canvas.inside] = False
    assert (e.heat[outside] == 0).all()
    for box in (*look.prediction.boxes, *look.prediction.candidates):
        assert 0 <= box.box[0] <= box.box[2] <= shape[1] and 0 <= box.box[1] <= box.box[3] <= shape[0]


def test_threshold_and_nms_are_settings_and_the_rest_are_candidates(tiny: YoloV3Tiny, bus: Look) -> None:
    few, many = (Look(tiny, bus.frame, {"threshold": t}) for t in (0.7, 0.05))
    assert len(few.prediction.boxes) == 2 < len(bus.prediction.boxes) < len(many.prediction.boxes)
    assert all(b.confidence < 0.7 for b in few.prediction.candidates)
    assert few.prediction.candidates[0].anchor == bus.prediction.boxes[2].anchor
    assert len(bus.prediction.candidates) <= boxes.UNREPORTED
    loose = Look(tiny, bus.frame, {"nms": 0.9})
    assert len(loose.prediction.boxes) > len(bus.prediction.boxes)
    with pytest.raises(BadInput, match="from 0.05 to 0.95"):
        Look(tiny, bus.frame, {"threshold": 2})


def test_nothing_to_see_is_no_box_and_a_sentence(tiny: YoloV3Tiny) -> None:
    look = Look(tiny, np.zeros((480, 640, 3), np.uint8))
    assert look.prediction.boxes == ()
    with pytest.raises(BadInput, match="no box to explain"):
        asked(None, look)


def test_hundreds_of_boxes_are_kept_and_no_more_than_the_most() -> None:
    draw = torch.Generator().manual_seed(0)
    corner = torch.rand(2000, 2, generator=draw) * 400
    confidences = torch.rand(2000, 80, generator=draw)
    canvas = yolov3.letterbox(np.zeros((416, 416, 3), np.uint8), 416)
    seen = boxes.keep(torch.cat([corner, corner + 8], 1), confidences, canvas, dict(enumerate(yolov3.COCO)),
                      0.3, 0.5)
    assert 200 < len(seen.boxes) <= boxes.MOST
    shown = [b.confidence for b in seen.boxes]
    assert shown == sorted(shown, reverse=True)


def test_random_weights_are_a_copy(tiny: YoloV3Tiny, bus: Look) -> None:
    before = tiny.score(bus.features, asked("box:0", bus))
    other = tiny.randomised(0.0, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(other.encode(bus.x).maps, tiny.encode(bus.x).maps,
                                                strict=True))
    for mine, its in zip(*(m.net.heads(*bus.features.maps) for m in (tiny, other)), strict=True):
        assert not torch.allclose(mine, its), "either head must be drawn anew"
    assert torch.equal(tiny.score(bus.features, asked("box:0", bus)), before)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    short = tmp_path / "short.weights"
    short.write_bytes(store.fetch("yolov3-tiny.weights").read_bytes()[:4000])
    with pytest.raises(BadInput, match="must hold 8858734 numbers after its header, got 995"):
        read_convolutions(short, yolov3.LAYERS)
