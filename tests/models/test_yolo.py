"""Ultralytics nets from their own YAML with random weights: split, decoding, both heads, and good manners."""
from __future__ import annotations

import copy
import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import models
from explainers import Look, steps
from explainers.pixels import probability
from explainers.whatif import confidence
from models import boxes, entries, store, yolo
from models.base import SIDES, BadInput, Box, Features, Target, letterbox
from models.coco import COCO
from models.yolo import Yolo
from tests.models.darknet_reference import overlap
from tests.toy import asked

ROOT = Path(__file__).resolve().parents[2]
FRAME = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)


def drawn(recipe: str) -> Any:
    """A net of that YAML, its statistics not those of a fresh one, its class numbers spread to give boxes."""
    torch.manual_seed(0)
    net = yolo.ultralytics("ultralytics.nn.tasks").DetectionModel(recipe, verbose=False).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.get_buffer("running_mean").normal_(0, 0.1)
            module.get_buffer("running_var").uniform_(0.5, 1.5)
    head, seen = net.model[-1], []
    hook = head.register_forward_pre_hook(lambda _, given: seen.extend(given[0]))
    with torch.no_grad():
        net(letterbox(FRAME, 640).x)
        hook.remove()
        for branch in (head.cv3, getattr(head, "one2one_cv3", None) or ()):
            for level, features in zip(branch, seen, strict=False):
                level[-1].weight.data.normal_(0, 1)
                level[-1].bias.data.zero_()
                numbers = level(features)
                few = float(numbers.flatten().kthvalue(round(0.9997 * numbers.numel())).values)
                level[-1].weight.data *= 2 / numbers.std()
                level[-1].bias.data -= 2 * few / numbers.std()
    return net


@pytest.fixture(scope="module", params=["yolo26n", "yolo11n", "yolov8n"])
def pair(request: pytest.FixtureRequest) -> tuple[Yolo, Any]:
    """Ours, and Ultralytics' own copy of the same random net."""
    net = drawn(f"{request.param}.yaml")
    return yolo.from_net(models.catalog()[request.param], copy.deepcopy(net)), net


def theirs(net: Any, look: Look, branch: str) -> tuple[np.ndarray, np.ndarray]:
    """Their decoding of all candidates: corners on the canvas and class probabilities."""
    head = net.model[-1]
    with torch.no_grad():
        raw = net(look.x)[1]
        raw = raw["one2one" if branch == entries.ONE else "one2many"] if "one2one" in raw else raw
        found = head._inference(raw)[0].T
    middle, size = found[:, :2], found[:, 2:4]
    return torch.cat([middle - size / 2, middle + size / 2], 1).numpy(), found[:, 4:].numpy()


def branches(model: Yolo) -> tuple[str, ...]:
    two = "branch" in [p.name for p in model.info.settings]
    return (entries.ONE, entries.MANY) if two else (entries.MANY,)


def test_every_candidate_is_decoded_as_they_do(pair: tuple[Yolo, Any]) -> None:
    model, net = pair
    look = Look(model, FRAME)
    for branch in branches(model):
        corners, shares = theirs(net, look, branch)
        later = len(corners) if branch == entries.MANY and len(branches(model)) == 2 else 0
        for anchor in (0, 79, 80, 3217, 6399, 6400, 7000, 7999, 8000, 8399):
            target = Target(index=7, anchor=anchor + later)
            logits = model.logits_of(look.features, target)[0]
            assert np.abs(logits.sigmoid().numpy() - shares[anchor]).max() < 1e-5
            assert float(model.score(look.features, target)[0]) == float(logits[7])
            sides = [float(model.score(look.features, replace(target, part=part))[0]) for part in SIDES]
            assert np.abs(np.array(sides) - corners[anchor]).max() < 0.01


def test_boxes_are_those_that_their_own_selection_keeps(pair: tuple[Yolo, Any]) -> None:
    model, net = pair
    for branch in branches(model):
        two = len(branches(model)) == 2
        look = Look(model, FRAME, {"threshold": 0.5, "nms": 0.5, **({"branch": branch} if two else {})})
        corners, shares = theirs(net, look, branch)
        ours = look.prediction.boxes
        assert ours and {b.branch for b in ours} == {branch if two else ""}
        later = len(corners) if two and branch == entries.MANY else 0
        if branch == entries.ONE:                     # nothing is suppressed
            clear = np.flatnonzero(shares.max(1) > 0.501)
            assert set(clear[np.argsort(-shares[clear].max(1))][:250]) <= {b.anchor for b in ours}
        else:                                      # every other one is beaten by a box of its class on it
            shown = {b.anchor - later: b.index for b in ours}
            for i in np.flatnonzero(shares.max(1) > 0.501)[:200]:
                assert i in shown or any(
                    index == shares[i].argmax() and shares[j, index] >= shares[i, index] - 1e-4
                    and overlap(corners[i], corners[j]) > 0.49 for j, index in shown.items())
            for i, j in itertools.combinations(shown, 2):
                assert shown[i] != shown[j] or overlap(corners[i], corners[j]) < 0.51
        for box in ours:
            index, share = shares[box.anchor - later].argmax(), shares[box.anchor - later].max()
            frame = look.canvas.to_frame(corners[box.anchor - later][None])[0].clip(0, [640, 360, 640, 360])
            assert box.index == index and box.confidence == pytest.approx(share, abs=1e-4)
            assert np.abs(np.array(box.box) - frame).max() < 0.5


def test_suppression_keeps_what_theirs_keeps() -> None:
    draw = torch.Generator().manual_seed(0)
    corner, size = torch.rand(3000, 2, generator=draw) * 560, 20 + 60 * torch.rand(3000, 2, generator=draw)
    shares = torch.rand(3000, 80, generator=draw) ** 12
    canvas = letterbox(np.zeros((640, 640, 3), np.uint8), 640)
    seen = boxes.keep(torch.cat([corner, corner + size], 1), shares, canvas, dict(enumerate(COCO)), 0.3, 0.5)
    suppress = yolo.ultralytics("ultralytics.utils.nms").non_max_suppression
    given = torch.cat([corner + size / 2, size, shares], 1).T[None]
    _, kept = suppress(given, 0.3, 0.5, max_det=boxes.MOST, return_idxs=True)
    assert len(seen.boxes) > 50
    assert {b.anchor for b in seen.boxes} == set(kept[0].flatten().tolist())


def test_the_score_is_the_logit_of_the_confidence_shown(pair: tuple[Yolo, Any]) -> None:
    """In float64: on random weights float32's own order of adding was seen to make 1.07e-6."""
    model, net = pair
    exact = yolo.from_net(model.info, copy.deepcopy(net))
    exact.net.double()
    canvas = letterbox(FRAME, 640)
    features = exact.encode(canvas.x.double())
    for branch in branches(model):
        settings: dict[str, Any] = {"branch": branch} if len(branches(model)) == 2 else {}
        seen = exact.predict(features, canvas, **settings)
        for box in (*seen.boxes[:20], *seen.candidates):
            score = exact.score(features, Target(index=box.index, anchor=box.anchor))
            assert float(score.sigmoid()) == pytest.approx(box.confidence, abs=1e-6)


def test_a_candidate_below_three_per_cent_is_told_by_its_logit(pair: tuple[Yolo, Any]) -> None:
    """The exponential of a logit of -4 is nearly its logistic: what it is shows only once it has risen."""
    model, _ = pair
    look = Look(model, FRAME)
    logits = torch.cat([model.logits_of(look.features, Target(7, anchor=a)) for a in range(0, 8400, 100)])
    place = int((logits[:, 7] + 4).abs().argmin())
    faint = Box(7, "7", float(logits[place, 7].sigmoid()), (0, 0, 9, 9), 100 * place)
    assert faint.confidence < 0.03
    look.prediction = replace(look.prediction, boxes=(), candidates=(faint,))
    target = Target(7, anchor=faint.anchor)
    weigh, (slopes, _) = probability(look, target), look.feature_gradients(target)
    raised = look.features
    while float(model.score(raised, target)) < 2:
        raised = Features(tuple(f + 0.1 * g / g.norm().clamp(min=1e-9) * f.norm()
                                for f, g in zip(raised.maps, slopes, strict=True)))
    assert float(weigh(raised)) == pytest.approx(float(model.score(raised, target).sigmoid()), abs=1e-6)
    assert float(weigh(look.features)) == pytest.approx(faint.confidence, abs=1e-6)
    assert confidence(look, target, look.x) == pytest.approx(faint.confidence, abs=1e-3)


def test_maps_gradients_and_refusals(pair: tuple[Yolo, Any]) -> None:
    model, _ = pair
    look = Look(model, FRAME)
    for text in ("box:0", "box:0/class:22/versus:23", "box:0/side:left", "candidate:0"):
        if text.startswith("box") or look.prediction.candidates:
            *_, e = steps(look, "odam", asked(text, look), {})
            assert e.heat.shape == (640, 640) and np.isfinite(e.heat).all()
    x = look.x.clone().requires_grad_()
    slope, = torch.autograd.grad(look.forward(asked("box:0", look))(x).sum(), x)
    assert torch.isfinite(slope).all() and (slope != 0).any()
    with pytest.raises(BadInput, match="has no objectness"):
        model.score(look.features, asked("box:0/objectness", look))
    with pytest.raises(BadInput, match="one of its candidates"):
        model.score(look.features, Target(index=0, anchor=10**6))
    batch = model.score(model.encode(look.x.repeat(2, 1, 1, 1)), asked("box:0", look))
    assert batch.shape == (2,) and batch[0] == pytest.approx(float(batch[1]), abs=1e-4)


def test_random_weights_reach_every_level_and_are_a_copy(pair: tuple[Yolo, Any]) -> None:
    model, _ = pair
    look = Look(model, FRAME)
    other = model.randomised(0.0, seed=1)
    for anchor in (0, 6400, 8000):
        target = Target(index=7, anchor=anchor)
        before, after = (m.logits_of(look.features, target) for m in (model, other))
        assert not torch.allclose(before, after)
    assert all(torch.equal(a, b) for a, b in zip(model.encode(look.x).maps, look.features.maps, strict=True))


def test_a_trusted_file_is_offered_and_loads(tmp_path: Path) -> None:
    file = tmp_path / "mine.pt"
    torch.save({"model": drawn("yolov8n.yaml").half()}, file)
    own = (models.Own("models.yolo", (file,)),)
    assert models.catalog(own)["own-mine"].task == "detect"
    assert "runs code" in models.catalog(own)["own-mine"].note
    model = models.load("own-mine", own=own)
    assert len(model.labels) == 80 and Look(model, FRAME).prediction.task == "detect"
    assert "own-mine" not in models.catalog()
    for wrong in (tmp_path / "none.pt", ROOT / "app.py"):
        with pytest.raises(BadInput, match=r"must be a \.pt file"):
            models.catalog([models.Own("models.yolo", (wrong,))])


class Trap:
    """What a checkpoint may hold: unpickling it runs a function."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


def test_an_official_file_is_read_without_running_what_it_holds(tmp_path: Path) -> None:
    honest, mark = tmp_path / "honest.pt", tmp_path / "ran"
    torch.save({"model": drawn("yolov8n.yaml")}, honest)
    assert yolo._checkpoint(honest, may_run_code=False).names[0] == "0"
    trap = tmp_path / "trap.pt"
    torch.save({"model": Trap(mark)}, trap)
    with pytest.raises(BadInput, match=r"trap\.pt is not a YOLO checkpoint"):
        yolo._checkpoint(trap, may_run_code=False)
    assert not mark.exists()


def test_other_tasks_are_refused() -> None:
    net = yolo.ultralytics("ultralytics.nn.tasks").SegmentationModel("yolov8n-seg.yaml", verbose=False)
    with pytest.raises(BadInput, match="ends in Segment; only nets for detection"):
        yolo.from_net(models.catalog()["yolov8n"], net)


def test_weights_come_from_the_release_and_are_pinned_where_a_digest_is_known() -> None:
    for name, info in yolo.CATALOG.items():
        asset = store.find(info.assets[0])
        assert str(asset.sources[0]).startswith("https://github.com/ultralytics/assets/releases/download/v8.")
        assert asset.licence == info.licence == "AGPL-3.0"
        if name == "yolov3u":
            assert asset.sha256 == "" and "no checksum" in info.note
        else:
            assert len(asset.sha256) == 64 and info.megabytes == round((asset.bytes or 0) / 1e6, 1)


def test_the_catalog_needs_no_ultralytics_and_loading_changes_no_library() -> None:
    code = """
import sys, PIL.Image, torch
opener, saver = PIL.Image.open, torch.save
import models
assert "yolo26n" in models.catalog()
assert "ultralytics" not in sys.modules, "the catalog imported ultralytics"
from models import yolo
tasks = yolo.ultralytics("ultralytics.nn.tasks")
assert PIL.Image.open is opener and torch.save is saver
from ultralytics.utils import AUTOINSTALL, ONLINE
from tests.toy import asked
assert not AUTOINSTALL and not ONLINE
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
