"""A user's ONNX files beside the torch nets they are made from, and what is said of those that do not fit."""
from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import explainers
import models
from explainers import METHODS, Look, faith, lacks, steps
from models import Own, yolo
from models.base import BadInput, Target, letterbox
from models.coco import COCO
from models.onnx_file import OnnxClassifier, OnnxDetector
from tests.models.test_yolo import FRAME, drawn
from tests.toy import asked

ROOM = "models.onnx_file"
NAMES = ["ant", "bee", "cat", "dog", "elk"]


class Small(nn.Module):
    """A classifier of five animals, on pictures with the colour first or last."""

    def __init__(self, softmax: bool = False, colour_last: bool = False):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Conv2d(3, 16, 5, 4), nn.ReLU(), nn.Conv2d(16, 16, 5, 4), nn.ReLU(),
                                 nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
        self.net.get_parameter("6.weight").data.normal_()
        self.softmax, self.colour_last = softmax, colour_last

    def forward(self, x: Tensor) -> Tensor:
        said = self.net(x.permute(0, 3, 1, 2) if self.colour_last else x)
        return said.softmax(1) if self.softmax else said


class Cells(nn.Module):
    """A detector of five animals: a candidate for each cell of 32 pixels, near its middle."""

    def __init__(self, size: int = 96):
        super().__init__()
        torch.manual_seed(2)
        self.net = nn.Conv2d(3, 4 + 5, 32, stride=32)
        nn.init.normal_(self.net.weight, std=0.05)
        middle = torch.arange(size // 32) * 32 + 16.0
        self.middles = torch.stack([middle.repeat(len(middle)), middle.repeat_interleave(len(middle))])

    def forward(self, x: Tensor) -> Tensor:
        raw = self.net(x).flatten(2)
        middle, size = self.middles + 4 * raw[:, :2].tanh(), 40 + 8 * raw[:, 2:4].tanh()
        return torch.cat([middle, size, raw[:, 4:].sigmoid()], 1)


def exported(net: nn.Module, file: Path, shape: tuple[int, ...], free: tuple[int, ...] = (),
             metadata: dict[str, str] | None = None) -> Path:
    """The net as an ONNX file; `free` are the axes of its input that are left open."""
    torch.onnx.export(net.eval(), (torch.rand(shape),), str(file), dynamo=False, input_names=["picture"],
                      dynamic_axes={"picture": {axis: f"open{axis}" for axis in free}} if free else None)
    if metadata:
        held = onnx.load(file)
        onnx.helper.set_model_props(held, metadata)
        onnx.save(held, file)
    return file


def own(file: Path, task: str, labels: list[str] = NAMES) -> Own:
    lines = file.with_suffix(".txt")
    lines.write_text("\n".join(labels) + "\n")
    return Own(ROOM, (file, lines), task)


def loaded(mine: Own) -> Any:
    return models.load(f"own-{mine.files[0].stem}", own=(mine,))


def normalised(x: Tensor, mean: tuple[float, ...] = (0.485, 0.456, 0.406),
               std: tuple[float, ...] = (0.229, 0.224, 0.225)) -> Tensor:
    return (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def near(got: Tensor, expected: Tensor, much: float = 1e-4, share: float = 0.0) -> None:
    torch.testing.assert_close(got, expected, rtol=share, atol=much)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> OnnxClassifier:
    file = tmp_path_factory.mktemp("own") / "animals.onnx"
    return loaded(own(exported(Small(), file, (1, 3, 64, 64)), "classify"))


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> OnnxDetector:
    file = tmp_path_factory.mktemp("own") / "finder.onnx"
    return loaded(own(exported(Cells(), file, (1, 3, 96, 96)), "detect"))


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize(("size", "free"), [(64, ()), (64, (0,)), (224, (0, 2, 3))])
@pytest.mark.parametrize("colour_last", [False, True])
def test_a_classifier_says_what_its_net_says(softmax: bool, size: int, free: tuple[int, ...],
                                             colour_last: bool, tmp_path: Path, frame: np.ndarray) -> None:
    """One picture at a time or many, colour first or last, logits or probabilities, any size or one."""
    shape = (1, size, size, 3) if colour_last else (1, 3, size, size)
    free = tuple(a - 1 if colour_last and a else a for a in free)
    file = exported(Small(softmax, colour_last), tmp_path / "net.onnx", shape, free)
    model = loaded(own(file, "classify"))
    assert model.prepare(frame).size == (size, size)
    x = torch.rand(3, 3, size, size)
    expected = Small().net(normalised(x))
    features = model.encode(x)
    got = model.logits_of(features, Target(index=0))
    near(got.log_softmax(1), expected.log_softmax(1))
    near(model.score(features, Target(index=2, versus=4)), expected[:, 2] - expected[:, 4])
    near(model.probability(features, Target(index=2)), expected.softmax(1)[:, 2])
    assert softmax or torch.allclose(got, expected, atol=1e-4)


def test_a_classifier_predicts_by_name(classifier: OnnxClassifier, frame: np.ndarray) -> None:
    canvas = classifier.prepare(frame)
    seen = classifier.predict(classifier.encode(canvas.x), canvas)
    expected = Small().net(normalised(canvas.x)).softmax(1)[0]
    assert seen.classes[0].label == NAMES[int(expected.argmax())] and len(seen.classes) == 5
    assert seen.probabilities is not None
    near(torch.from_numpy(seen.probabilities), expected)
    assert canvas.scale[0] == pytest.approx(64 / (120 * 224 / 256), rel=0.01)


def test_the_files_metadata_say_how_it_normalises(tmp_path: Path) -> None:
    x = torch.rand(2, 3, 64, 64)
    said = exported(Small(), tmp_path / "said.onnx", (1, 3, 64, 64),
                    metadata={"mean": "0.5,0.4,0.3", "std": "0.2, 0.3, 0.4"})
    expected = Small().net(normalised(x, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    near(loaded(own(said, "classify")).encode(x).rest[0], expected)
    theirs = exported(Small(), tmp_path / "theirs.onnx", (1, 3, 64, 64), metadata={"author": "Ultralytics"})
    model = loaded(own(theirs, "classify"))
    near(model.encode(x).rest[0], Small().net(x))
    assert model.prepare(np.zeros((80, 99, 3), np.uint8)).scale == (0.8, 0.8)


@pytest.mark.parametrize(("metadata", "sentence"), [
    ({"mean": "0.5"}, "mean in the metadata .* must be three numbers with commas between, got '0.5'"),
    ({"mean": "a,b,c"}, "must be three numbers"), ({"std": "1, 0, 1"}, "above zero, got '1, 0, 1'")])
def test_metadata_that_cannot_be_meant(tmp_path: Path, metadata: dict[str, str], sentence: str) -> None:
    file = exported(Small(), tmp_path / "net.onnx", (1, 3, 64, 64), metadata=metadata)
    with pytest.raises(BadInput, match=sentence):
        loaded(own(file, "classify"))


def as_ultralytics_does(net: Any, file: Path, size: int, end2end: bool = False) -> Path:
    """What YOLO(...).export(format="onnx", nms=False) traces."""
    other = deepcopy(net)
    other.model[-1].export, other.model[-1].format = True, "onnx"
    if hasattr(other, "end2end"):
        other.end2end = end2end
    return exported(other, file, (1, 3, size, size))


def test_an_ultralytics_export_says_what_its_net_says(tmp_path: Path) -> None:
    net = drawn("yolo11n.yaml")
    model = loaded(own(as_ultralytics_does(net, tmp_path / "mine.onnx", yolo.SIZE), "detect", list(COCO)))
    plain = yolo.from_net(models.catalog()["yolo11n"], deepcopy(net))
    canvas = letterbox(FRAME, yolo.SIZE)       # what was exported takes squares alone
    np.testing.assert_array_equal(model.prepare(FRAME).x.cpu(), canvas.x.cpu())
    with torch.no_grad():
        mine, theirs = model.encode(canvas.x), plain.encode(canvas.x)
        seen, expected = (m.predict(f, canvas, threshold=0.51) for m, f in ((model, mine), (plain, theirs)))
        assert len(expected.boxes) > 1 and len(seen.boxes) == len(expected.boxes)
        for box, other in zip(seen.boxes, expected.boxes, strict=True):
            assert (box.index, box.label, box.anchor) == (other.index, COCO[other.index], other.anchor)
            assert box.confidence == pytest.approx(other.confidence, abs=1e-4)
            np.testing.assert_allclose(box.box, other.box, atol=0.05)
        for anchor in (0, 5000, expected.boxes[0].anchor, 8399):
            for asked in (Target(index=1, anchor=anchor), Target(index=1, versus=4, anchor=anchor)):
                near(model.score(mine, asked), plain.score(theirs, asked), share=1e-4)
                near(model.probability(mine, asked), plain.probability(theirs, asked))
            near(model.logits_of(mine, asked), plain.logits_of(theirs, asked), share=1e-4)
            for side in ("left", "top", "right", "bottom"):
                asked = Target(anchor=anchor, part=side)
                near(model.score(mine, asked), plain.score(theirs, asked), much=1e-2)


def test_two_heads_are_refused_until_the_raw_one_is_exported(tmp_path: Path) -> None:
    made = drawn("yolo26n.yaml")
    with pytest.raises(BadInput, match=r"is \(1, \d+, 6\); only the raw output .* nms=False .*end2end=False"):
        loaded(own(as_ultralytics_does(made, tmp_path / "ends.onnx", 320, True), "detect", list(COCO)))
    model = loaded(own(as_ultralytics_does(made, tmp_path / "raw.onnx", 320), "detect", list(COCO)))
    assert model.prepare(np.zeros((9, 9, 3), np.uint8)).size == (320, 320)


def test_a_candidate_is_scored_in_log_odds_and_told_exactly(detector: OnnxDetector) -> None:
    x = torch.rand(3, 3, 96, 96)
    features, plain = detector.encode(x), Cells()(x).detach()
    near(features.rest[0], plain)
    asked = Target(index=3, anchor=4)
    near(detector.score(features, asked), plain[:, 7, 4].logit())
    near(detector.probability(features, asked), plain[:, 7, 4], much=1e-6)
    near(detector.score(features, Target(anchor=4, part="right")), plain[:, 0, 4] + plain[:, 2, 4] / 2)


@pytest.mark.parametrize(("target", "sentence"), [
    (Target(index=9, anchor=0), "class must be an index from 0 to 4, got 9"),
    (Target(anchor=0), "needs a class"), (Target(index=0, anchor=9), "one of its candidates, got 9"),
    (Target(index=0), "say box:0"), (Target(anchor=0, part="objectness"), "has no objectness")])
def test_what_a_detector_cannot_be_asked(detector: OnnxDetector, target: Target, sentence: str) -> None:
    features = detector.encode(torch.rand(1, 3, 96, 96))
    for ask in (detector.score, detector.probability):
        with pytest.raises(BadInput, match=sentence):
            ask(features, target)
    with pytest.raises(BadInput, match="no confidence"):
        detector.probability(features, Target(anchor=0, part="left"))


SURE = {"threshold": 0.5}
LONG = ("samples", "steps", "masks", "iterations", "randoms", "grid")


@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("kind", ["classifier", "detector"])
def test_every_method_works_or_says_what_is_missing(kind: str, name: str, request: pytest.FixtureRequest,
                                                    frame: np.ndarray) -> None:
    model, method = request.getfixturevalue(kind), METHODS[name]
    if model.info.task not in method.tasks:
        return
    missing = lacks(method, model)
    assert (missing is None) == (method.needs <= {"sides"})
    if missing:
        assert model.info.title in missing
        with pytest.raises(BadInput) as refusal:
            explainers.explain(model, frame, name)
        assert str(refusal.value) == missing
        return
    few: dict[str, Any] = {p.name: p.low for p in method.parameters if p.name in LONG}
    e = explainers.explain(model, frame, name, settings=SURE if kind == "detector" else {}, **few)
    assert e.done and np.isfinite(e.heat).all() and e.heat.shape == model.prepare(frame).size
    assert method.group != "perturbation" or e.heat.std() > 0


def test_what_answers_first_needs_no_gradient(classifier: OnnxClassifier, detector: OnnxDetector) -> None:
    assert [explainers.preferred(m) for m in (classifier, detector)] == ["rise", "d_rise"]
    assert classifier.offers == frozenset() and detector.offers == {"sides"}
    for model in (classifier, detector):
        with pytest.raises(BadInput, match="cannot be redrawn"):
            model.randomised(1.0, 0)


@pytest.mark.parametrize(("kind", "name", "question"), [("classifier", "rise", "class:cat"),
                                                       ("detector", "d_rise", "box:0")])
def test_the_curves_judge_it_and_none_redraws_it(kind: str, name: str, question: str, frame: np.ndarray,
                                                 request: pytest.FixtureRequest) -> None:
    look = Look(request.getfixturevalue(kind), frame, SURE if kind == "detector" else {})
    target = asked(question, look)
    *_, e = steps(look, name, target, {"masks": 20})
    judged = faith.curves(look, e, target, steps=4)
    assert set(judged.curves) == set(faith.CURVES)
    assert all(0 <= v <= 1 for curve in judged.curves.values() for v in curve)
    with pytest.raises(BadInput, match="draws weights anew"):
        next(faith.sanity(look, name, target, {}))


def test_a_side_is_explained_by_hiding(detector: OnnxDetector, frame: np.ndarray) -> None:
    e = explainers.explain(detector, frame, "occlusion", "box:0/side:left", SURE)
    assert e.raw_max > 0


def test_the_catalog_lists_it(tmp_path: Path) -> None:
    mine = own(exported(Small(), tmp_path / "net.onnx", (1, 3, 64, 64)), "classify")
    info = models.catalog((mine,))["own-net"]
    assert (info.task, info.title, info.embedded, info.settings) == ("classify", "net (your own)", False, ())
    assert [p.name for p in models.catalog((Own(ROOM, mine.files, "detect"),))["own-net"].settings] == [
        "threshold", "nms"]
    assert "own-net" not in models.catalog()


@pytest.mark.parametrize(("files", "task", "sentence"), [
    (("net.onnx", "net.txt"), "caption", "task must be classify or detect, got 'caption'"),
    (("net.onnx",), "classify", "say --onnx FILE --labels FILE"),
    (("net.txt", "net.txt"), "classify", "is a .onnx file and a file of labels"),
    (("gone.onnx", "net.txt"), "classify", "there is no file .*gone.onnx"),
    (("net.onnx", "gone.txt"), "detect", "there is no file .*gone.txt")])
def test_what_cannot_be_offered(files: tuple[str, ...], task: str, sentence: str, tmp_path: Path) -> None:
    for name in ("net.onnx", "net.txt"):
        (tmp_path / name).write_text("never read")
    with pytest.raises(BadInput, match=sentence):
        models.catalog((Own(ROOM, tuple(tmp_path / name for name in files), task),))


def named(text: bytes) -> Callable[[Path], Own]:
    """A whole net with another list of labels."""
    def make(folder: Path) -> Own:
        mine = own(exported(Small(), folder / "net.onnx", (1, 3, 64, 64)), "classify")
        mine.files[1].write_bytes(text)
        return mine
    return make


def broken(content: bytes) -> Callable[[Path], Own]:
    def make(folder: Path) -> Own:
        (folder / "net.onnx").write_bytes(content)
        return own(folder / "net.onnx", "classify")
    return make


def taking(shape: tuple[int | None, ...], kind: int = onnx.TensorProto.FLOAT, task: str = "classify",
           outputs: int = 1, says: tuple[int, ...] = (1, 5)) -> Callable[[Path], Own]:
    """A graph that says the same whatever it is shown."""
    def make(folder: Path) -> Own:
        h, number, names = onnx.helper, onnx.TensorProto.FLOAT, [f"said{i}" for i in range(outputs)]
        always = h.make_tensor("always", number, says, np.full(np.prod(says), 2.0, np.float32))
        graph = h.make_graph([h.make_node("Constant", [], [name], value=always) for name in names], "same",
                             [h.make_tensor_value_info("picture", kind, shape)],
                             [h.make_tensor_value_info(name, number, says) for name in names])
        held = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=9)
        onnx.save(held, folder / "net.onnx")
        return own(folder / "net.onnx", task)
    return make


@pytest.mark.parametrize(("make", "sentence"), [
    (broken(b""), "net.onnx could not be read as an ONNX model: .*export it anew"),
    (broken(b"<html>404</html>" * 9), "could not be read as an ONNX model"),
    (named(b"ant\nbee\n"), "tells 5 classes apart, and its labels are 2 lines"),
    (named(b"\xff\xfe\x00\n"), "net.txt must be a text in UTF-8"),
    (taking((1, 64, 64)), "must take pictures of N x 3 x height x width"),
    (taking((1, 1, 28, 28)), "must take pictures of N x 3 x height x width"),
    (taking((1, 3, 64, 96)), "must take square pictures"),
    (taking((8, 3, 64, 64)), "takes 8 pictures at once; export it for one"),
    (taking((1, 3, 64, 64), onnx.TensorProto.FLOAT16), r"must take 32-bit floats, got tensor\(float16\)"),
    (taking((1, 3, 64, 64), outputs=2), "one input, a picture, and one output, got 1 and 2"),
    (taking((1, 3, 64, 64), task="detect"), r"the output of net.onnx is \(1, 5\); only the raw output"),
    (taking((1, 3, 64, 64), task="detect", says=(1, 300, 6)), r"is \(1, 300, 6\); .* nms=False"),
    (taking((1, 3, 64, 64), task="detect", says=(1, 84, 8400)), "80 classes apart, and its labels are 5"),
    (taking((1, 3, 64, 64), task="detect", says=(1, 9, 40)), "a confidence from 0 to 1, got 2 to 2")])
def test_a_file_that_does_not_fit_is_told_in_a_sentence(make: Callable[[Path], Own], sentence: str,
                                                        tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=sentence) as refusal:
        loaded(make(tmp_path))
    assert str(tmp_path) not in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_net_that_cannot_run_is_told_in_a_sentence(tmp_path: Path) -> None:
    """Its size is left open, and it takes one only."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 5))
    file = exported(net, tmp_path / "net.onnx", (1, 3, 64, 64), (2, 3))
    with pytest.raises(BadInput, match="look at a grey picture of 224 x 224: .*export it for a fixed size"):
        loaded(own(file, "classify"))


def test_it_runs_on_as_many_threads_as_the_rest(classifier: OnnxClassifier) -> None:
    from models.base import THREADS

    assert classifier._graph._session.get_session_options().intra_op_num_threads == THREADS
