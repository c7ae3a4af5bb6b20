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
from explainers import METHODS, Look, lacks, steps
from explainers.pixels import probability
from explainers.whatif import confidence
from models import boxes, compiled, entries, store, yolo
from models.base import SIDES, BadInput, Box, Canvas, Features, Target, letterbox
from models.coco import COCO
from models.yolo import Yolo
from tests.contract.test_every_method_on_every_model import finished, short
from tests.models.darknet_reference import overlap
from tests.models.test_compiled import agree
from tests.toy import asked

LEAST = 0.502               # the confidence of many places is exactly a half, see drawn()
ROOT = Path(__file__).resolve().parents[2]
FRAME = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where exports are kept, and nothing else looks."""
    monkeypatch.setattr("models.store.cache_folder", lambda: tmp_path)
    return tmp_path / "compiled"


def drawn(recipe: str, frame: np.ndarray = FRAME) -> Any:
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
        net(letterbox(frame, 640, stride=32).x)
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
        assert len(corners) == (48 * 80 + 24 * 40 + 12 * 20), "padded to the stride, not to a square"
        for anchor in (0, 79, 80, 2217, 3839, 3840, 4200, 4799, 4800, 5039):
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


def predicted(net: Any, frame: np.ndarray, **settings: Any) -> np.ndarray:
    """Left, top, right, bottom, confidence, class, row by row: what Ultralytics' own predict says."""
    threads = torch.get_num_threads()
    model = yolo.ultralytics("ultralytics").YOLO(net.yaml["yaml_file"], task="detect", verbose=False)
    model.model = copy.deepcopy(net)
    try:
        seen = model.predict(frame[..., ::-1].copy(), imgsz=640, device="cpu", verbose=False, **settings)
    finally:
        torch.set_num_threads(threads)         # it leaves one to the whole process
    return seen[0].boxes.data.numpy()


@pytest.mark.parametrize("recipe", ["yolo26n", "yolo11n", "yolov8n"])
@pytest.mark.parametrize("name", ["bus", "zidane"])
def test_boxes_are_those_of_their_own_predict(recipe: str, name: str,
                                              photographs: dict[str, np.ndarray]) -> None:
    """All before suppression: random nets say the same of many places, and then chance decides who is first.

    A square as it was padded to before, with more grey, gives other boxes.
    """
    frame = photographs[name]
    net = drawn(f"{recipe}.yaml", frame)
    model = yolo.from_net(models.catalog()[recipe], copy.deepcopy(net))
    fast = yolo.from_net(model.info, copy.deepcopy(net))
    compiled.compile_model(fast)
    assert compiled.state_of(fast) == "ONNX Runtime"
    for branch in branches(model):
        own = {"nms": False} if branch == entries.ONE else {"iou": 1.0}
        expected = predicted(net, frame, conf=LEAST, **own)
        assert 5 < len(expected) < boxes.MOST
        for one in (model, fast):
            ours = unsuppressed(one, one.prepare(frame), branch)
            assert unmatched(ours, expected) == 0
            # Their end-to-end head names a place once for each of its classes, ours for the best of them.
            assert unmatched(expected[:, :4], ours[:, :4]) == 0
            assert branch == entries.ONE or len(ours) == len(expected)
        square = unsuppressed(model, letterbox(frame, 640), branch)
        assert unmatched(expected, square) > 0


def unsuppressed(model: Yolo, canvas: Canvas, branch: str) -> np.ndarray:
    """Rows as those of `predicted`."""
    with torch.no_grad():
        seen = model.predict(model.encode(canvas.x), canvas, threshold=LEAST, nms=1.0, branch=branch)
    return np.array([[*b.box, b.confidence, b.index] for b in seen.boxes])


def unmatched(some: np.ndarray, others: np.ndarray) -> int:
    """How many boxes have no other within a hundredth of a pixel, nor then of that confidence and class."""
    off = np.abs(some[:, None] - others[None])
    near = (off[..., :4] < 0.01).all(-1) & (off[..., 4:] < 1e-4).all(-1)
    return int((~near.any(1)).sum())


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
    canvas = exact.prepare(FRAME)
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
    logits = torch.cat([model.logits_of(look.features, Target(7, anchor=a)) for a in range(0, 5040, 60)])
    place = int((logits[:, 7] + 4).abs().argmin())
    faint = Box(7, "7", float(logits[place, 7].sigmoid()), (0, 0, 9, 9), 60 * place)
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


def test_a_compiled_net_takes_pictures_of_any_shape(pair: tuple[Yolo, Any], kept: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """Its body and its heads, from one file each; where hooks hang, torch runs."""
    model = yolo.from_net(pair[0].info, copy.deepcopy(pair[1]))
    compiled.compile_model(model)
    assert compiled.state_of(model) == "ONNX Runtime" and not any(m.training for m in model.net.modules())
    assert len(list(kept.iterdir())) == len(model.parts) == 1 + len(branches(model))
    for height, width in ((640, 640), (384, 640), (640, 480), (32, 640)):
        agree(model, height, width)
        with torch.no_grad():
            maps = model.encode(torch.rand(1, 3, height, width)).maps
            for head in model._read.values():
                compiled.close(Features(rest=head(maps)), Features(rest=head.branch(*maps)))
    fired: list[int] = []
    handle = model.net.model[-1].cv3[0][-1].register_forward_hook(lambda *_: fired.append(1))
    Look(model, FRAME, {"branch": entries.MANY} if len(branches(model)) == 2 else {})
    handle.remove()
    for branch in [head.branch for head in model._read.values()]:
        monkeypatch.setattr(branch, "forward", None)       # torch would fail from here on
    monkeypatch.setattr(model.body, "_plain", None)
    assert fired == [1] and Look(model, FRAME).canvas.size == (384, 640)


def test_maps_gradients_and_refusals(pair: tuple[Yolo, Any]) -> None:
    model, _ = pair
    look = Look(model, FRAME)
    for text in ("box:0", "box:0/class:22/versus:23", "box:0/side:left", "candidate:0"):
        if text.startswith("box") or look.prediction.candidates:
            *_, e = steps(look, "odam", asked(text, look), {})
            assert e.heat.shape == (384, 640) and np.isfinite(e.heat).all()
    x = look.x.clone().requires_grad_()
    slope, = torch.autograd.grad(look.forward(asked("box:0", look))(x).sum(), x)
    assert torch.isfinite(slope).all() and (slope != 0).any()
    with pytest.raises(BadInput, match="has no objectness"):
        model.score(look.features, asked("box:0/objectness", look))
    with pytest.raises(BadInput, match="one of its candidates"):
        model.score(look.features, Target(index=0, anchor=10**6))
    batch = model.score(model.encode(look.x.repeat(2, 1, 1, 1)), asked("box:0", look))
    assert batch.shape == (2,) and batch[0] == pytest.approx(float(batch[1]), abs=1e-4)


@pytest.fixture(scope="module", params=["wide", "tall"])
def oblong(request: pytest.FixtureRequest, photographs: dict[str, np.ndarray],
           tmp_path_factory: pytest.TempPathFactory) -> Look:
    """A compiled net's look at a picture far from square, with uneven padding along its short side."""
    frame = np.ascontiguousarray(photographs["bus"][430:861:2, ::2])
    frame = frame if request.param == "wide" else np.ascontiguousarray(frame.transpose(1, 0, 2))
    model = yolo.from_net(models.catalog()["yolov8n"], drawn("yolov8n.yaml", frame))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.store.cache_folder", lambda: tmp_path_factory.mktemp("cache"))
        compiled.compile_model(model)
    assert compiled.state_of(model) == "ONNX Runtime"
    return Look(model, frame)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if "detect" in method.tasks])
def test_every_method_explains_wide_and_tall_pictures(name: str, oblong: Look) -> None:
    height, width = oblong.canvas.size
    assert sorted((height, width)) == [352, 640] and oblong.prediction.boxes
    method, before = METHODS[name], oblong.prediction.describe()
    if lacks(method, oblong.model):            # what it says is checked where every model is
        assert name in ("guided_backpropagation", "parchgrad")
        return
    e = finished(oblong, name, short(method))
    assert e.done and e.heat.shape == (height, width) and np.isfinite(e.heat).all()
    assert e.empty or e.heat.std() > 0
    padding = e.heat.copy()
    padding[oblong.canvas.inside] = 0
    assert not padding.any() and all(m.shape == (height, width) for m in e.maps.values())
    for picture in (e.image, *e.images.values()):
        assert picture is None or picture.shape == (height, width, 3)
    assert oblong.canvas.map_on_frame(e.heat).shape == oblong.frame.shape[:2]
    assert Look(oblong.model, oblong.frame).prediction.describe() == before


@pytest.mark.parametrize("name", ["odam", "layer_cam", "saliency"])
def test_a_box_at_the_end_of_a_long_picture_is_explained_there(name: str, oblong: Look) -> None:
    """Heat lies where the candidate's own cells are: nothing takes rows for columns."""
    centres = [sum(b.box) for b in oblong.prediction.boxes]
    for number in (int(np.argmin(centres)), int(np.argmax(centres))):
        box = oblong.prediction.boxes[number]
        *_, e = steps(oblong, name, asked(f"box:{number}", oblong), {})
        heat = oblong.canvas.map_on_frame(e.heat)
        left, top, right, bottom = (round(v) for v in box.box)
        assert heat[top:bottom, left:right].mean() > 1.5 * heat.mean(), (name, box.box)


def test_random_weights_reach_every_level_and_are_a_copy(pair: tuple[Yolo, Any]) -> None:
    model, _ = pair
    look = Look(model, FRAME)
    other = model.randomised(0.0, seed=1)
    for anchor in (0, 3840, 4800):
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
