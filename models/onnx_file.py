"""A user's own ONNX classifier or detector, run by ONNX Runtime, for every method that needs no gradient.

A classifier is shown the middle of the picture, normalised as for ImageNet unless the file's metadata holds
`mean` and `std`, three numbers each with commas between; it answers with a logit or a probability for each
class. A detector is shown the whole picture, letterboxed, in [0,1]; it answers as Ultralytics' exports do
without suppression: (1, 4 + classes, candidates), middle and size in canvas pixels, then the confidences.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models import Own, boxes, compiled, entries
from models.base import (
    BadInput,
    Canvas,
    Features,
    ModelInfo,
    Prediction,
    Progress,
    Target,
    centre_crop,
    device,
    letterbox,
)
from models.classifier import Classifies

SIZES = {"classify": 224, "detect": 640}       # where the file leaves the size open
SHARE = 224 / 256                              # of the short side that an ImageNet classifier sees
NORMAL = {"mean": "0.485, 0.456, 0.406", "std": "0.229, 0.224, 0.225"}
LEAST = 1e-12                                  # a probability of nothing has no logarithm
RAW = ("only the raw output of an Ultralytics detector is understood, (1, 4 + classes, candidates); export "
       'it with format="onnx", nms=False and, from Ultralytics 8.4 on, end2end=False')


class Graph:
    """An ONNX file as a function of pictures: which axis is colour, how large, how many at once."""

    def __init__(self, file: Path, open_size: int):
        self.name, self._session = file.name, _session(file)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise BadInput(f"{file.name} must have one input, a picture, and one output, got {len(inputs)} "
                           f"and {len(outputs)}; export the net without the others")
        if inputs[0].type != "tensor(float)":
            raise BadInput(f"{file.name} must take 32-bit floats, got {inputs[0].type}; export it without "
                           "half precision and without quantised inputs")
        self._input, self._output = inputs[0].name, outputs[0].name
        self.size, self._colour_last, self._one_by_one = _layout(inputs[0].shape, file.name, open_size)
        self.says: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def __call__(self, x: Tensor) -> Tensor:
        """Nx3xhxw pictures, normalised, to the file's output; N first."""
        pictures = x.detach().permute(0, 2, 3, 1) if self._colour_last else x.detach()
        ready = np.ascontiguousarray(pictures.cpu().numpy())
        parts = np.split(ready, len(ready)) if self._one_by_one else [ready]
        said = [self._session.run([self._output], {self._input: part})[0] for part in parts]
        return torch.from_numpy(np.concatenate(said)).float().to(x.device)

    def on_grey(self) -> Tensor:
        """What it says of a grey picture: whether it runs at all, and what its output is."""
        try:
            return self(torch.full((1, 3, self.size, self.size), 0.5, device=device()))
        except Exception as problem:           # ONNX Runtime's errors have no base class of their own
            raise BadInput(f"{self.name} could not look at a grey picture of {self.size} x {self.size}: "
                           f"{compiled.reason(problem)}; export it for a fixed size") from problem


def _session(file: Path) -> Any:
    try:
        return compiled.opened(str(file))
    except Exception as problem:               # ONNX Runtime's errors have no base class of their own
        raise BadInput(f"{file.name} could not be read as an ONNX model: {compiled.reason(problem)}; "
                       "export it anew, and keep a .onnx.data file beside it if there is one") from problem


def _layout(shape: list[Any], name: str, open_size: int) -> tuple[int, bool, bool]:
    """Side, whether colour comes last, and whether pictures must come one by one; or what does not fit."""
    known = [n if isinstance(n, int) and n > 0 else None for n in shape]
    first = len(known) == 4 and (known[1] == 3 or (known[1] is None and known[3] != 3))
    if len(known) != 4 or not (first or known[3] == 3):
        raise BadInput(f"{name} must take pictures of N x 3 x height x width or N x height x width x 3, "
                       f"got {shape}")
    sides = {n for n in (known[2:] if first else known[1:3]) if n}
    if len(sides) > 1:
        raise BadInput(f"{name} must take square pictures, got {shape}; export it for one size")
    if known[0] not in (None, 1):
        raise BadInput(f"{name} takes {known[0]} pictures at once; export it for one, or for any number")
    return sides.pop() if sides else open_size, not first, known[0] == 1


class _OnnxFile:
    """What classifiers and detectors in ONNX files have in common."""

    info: ModelInfo

    def randomised(self, share: float, seed: int) -> Any:
        raise BadInput(f"the weights of {self.info.title} cannot be redrawn: an ONNX file is only run")


class OnnxClassifier(_OnnxFile, Classifies):
    """A classifier in an ONNX file; its features are its logits."""

    offers: frozenset[str] = frozenset()

    def __init__(self, info: ModelInfo, graph: Graph, labels: dict[int, str]):
        self.info, self.labels, self._graph = info, labels, graph
        normal = {**NORMAL, "mean": "0, 0, 0", "std": "1, 1, 1"} if _ultralytics(graph) else NORMAL
        self._share = 1.0 if _ultralytics(graph) else SHARE
        self._shift, self._spread = (_three(graph, key, graph.says.get(key, normal[key])) for key in normal)
        said = graph.on_grey().flatten(1)
        _as_many(graph, said.shape[1], labels)
        self._normalised = bool((said >= 0).all()) and abs(float(said.sum()) - 1) < 1e-3

    def prepare(self, frame: np.ndarray) -> Canvas:
        return centre_crop(frame, self._graph.size, self._share)

    def encode(self, x: Tensor) -> Features:
        said = self._graph((x - self._shift) / self._spread).flatten(1)
        return Features(rest=(said.clamp(min=LEAST).log() if self._normalised else said,))

    def logits(self, features: Features) -> Tensor:
        return features.rest[0]


def _ultralytics(graph: Graph) -> bool:
    """Ultralytics' own classifiers take the largest square in [0,1], and their files say who made them."""
    return graph.says.get("author") == "Ultralytics"


def _three(graph: Graph, key: str, text: str) -> Tensor:
    """3x1x1 from the metadata's text."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 3 or not np.isfinite(numbers).all() or (key == "std" and min(numbers) <= 0):
        raise BadInput(f"{key} in the metadata of {graph.name} must be three numbers with commas between"
                       f"{', above zero' if key == 'std' else ''}, got {text!r}")
    return torch.tensor(numbers, device=device()).view(3, 1, 1)


def _as_many(graph: Graph, classes: int, labels: dict[int, str]) -> None:
    if classes != len(labels):
        raise BadInput(f"{graph.name} tells {classes} classes apart, and its labels are {len(labels)} lines; "
                       "there must be one line for each class, in the net's order")


class OnnxDetector(_OnnxFile):
    """A detector in an ONNX file; its features are all its candidates, N x (4 + classes) x candidates."""

    offers: frozenset[str] = frozenset({"sides"})

    def __init__(self, info: ModelInfo, graph: Graph, labels: dict[int, str]):
        self.info, self.labels, self._graph = info, labels, graph
        said = graph.on_grey()
        shape = tuple(said.shape)
        raw = len(shape) == 3 and (shape[1] == 4 + len(labels) or 4 < shape[1] < shape[2])
        if not raw:
            raise BadInput(f"the output of {graph.name} is {shape}; {RAW}")
        _as_many(graph, shape[1] - 4, labels)
        if not 0 <= float(said[:, 4:].min()) <= float(said[:, 4:].max()) <= 1:
            raise BadInput(f"{graph.name} must give every class a confidence from 0 to 1, got "
                           f"{float(said[:, 4:].min()):g} to {float(said[:, 4:].max()):g}; {RAW}")
        self._candidates = shape[2]

    def prepare(self, frame: np.ndarray) -> Canvas:
        return letterbox(frame, self._graph.size)

    def encode(self, x: Tensor) -> Features:
        return Features(rest=(self._graph(x),))

    def predict(self, features: Features, canvas: Canvas, threshold: float = 0.3, nms: float = 0.6,
                **settings: Any) -> Prediction:
        said = features.rest[0][0]
        return boxes.keep(torch.stack(_corners(said[:4].unbind(0)), 1), said[4:].T, canvas, self.labels,
                          threshold, nms)

    def score(self, features: Features, target: Target) -> Tensor:
        if target.part == "class":
            numbers = self.logits_of(features, target)
            chosen = numbers[:, boxes.checked_class(target.index, self.labels)]
            if target.versus is None:
                return chosen
            return chosen - numbers[:, boxes.checked_class(target.versus, self.labels)]
        if target.part == "objectness":
            raise BadInput(f"{self.info.title} has no objectness, its class says it all; explain the class "
                           f"or a side: {', '.join(boxes.SIDES)}")
        return boxes.side(_corners(self._one(features, target)[:, :4].unbind(1)), target.part)

    def logits_of(self, features: Features, target: Target) -> Tensor:
        confidences = self._one(features, target)[:, 4:].double().clamp(LEAST, 1 - LEAST)
        return confidences.logit().float()

    def probability(self, features: Features, target: Target) -> Tensor:
        boxes.confident(target.part)
        if target.part != "class" or target.versus is not None:
            return self.score(features, target).sigmoid()
        return self._one(features, target)[:, 4 + boxes.checked_class(target.index, self.labels)]

    def _one(self, features: Features, target: Target) -> Tensor:
        """N x (4 + classes): what is said of the candidate that the target is about."""
        if target.anchor is None or not 0 <= target.anchor < self._candidates:
            raise BadInput(f"a box of {self.info.title} is one of its candidates, got {target.anchor}; "
                           "say box:0, candidate:0 or near:X,Y")
        return features.rest[0][:, :, target.anchor]


def _corners(numbers: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Left, top, right, bottom from middle and size."""
    x, y, width, height = numbers
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _labels(file: Path) -> dict[int, str]:
    try:
        lines = file.read_text("utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise BadInput(f"{file.name} must be a text in UTF-8, a class in each line: {problem}") from problem
    return dict(enumerate(line.strip() for line in lines))


def offer(own: Own) -> ModelInfo:
    """The catalog's entry for a user's ONNX file and its labels, or a sentence that says what is missing."""
    if own.task not in SIZES:
        raise BadInput(f"an ONNX model's task must be {' or '.join(SIZES)}, got {own.task!r}; say --task")
    if len(own.files) != 2 or own.files[0].suffix != ".onnx":
        raise BadInput("an ONNX model is a .onnx file and a file of labels, got "
                       f"{', '.join(str(f) for f in own.files) or 'nothing'}; say --onnx FILE --labels FILE")
    for file in own.files:
        if not file.is_file():
            raise BadInput(f"there is no file {file}")
    file = own.files[0]
    return ModelInfo(f"own-{file.stem}", own.task, f"{file.stem} (your own)", False,
                     round(file.stat().st_size / 1e6, 1), "your own", file.name,
                     settings=entries.BOX_SETTINGS if own.task == "detect" else (),
                     note="an ONNX file: every method that needs no gradient")


def load_own(own: Own, info: ModelInfo, progress: Progress) -> OnnxClassifier | OnnxDetector:
    """The user's file, ready to look."""
    file, labels = own.files
    progress(file.name, 0, file.stat().st_size)
    kind = OnnxDetector if own.task == "detect" else OnnxClassifier
    return kind(info, Graph(file, SIZES[own.task]), _labels(labels))
