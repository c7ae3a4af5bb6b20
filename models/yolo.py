"""Ultralytics YOLO (v3u, 8, 11, 26 and your own), split before the Detect head: encode gives the pyramid.

Nothing of Ultralytics is imported before a model is asked for, and its .predict() is never used: the head's
own convolutions run on the pyramid, and a candidate's score only on the few cells that its numbers depend on.
A picture is padded no more than the net needs, so wide and tall ones have fewer candidates than square ones.
"""
from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models import Own, boxes, compiled, entries, nets, store
from models.base import (
    BadInput,
    Canvas,
    Features,
    ModelInfo,
    Prediction,
    Progress,
    Target,
    device,
    letterbox,
    randomised_copy,
    silent,
)

SIZE = 640                  # of the long side
CATALOG = entries.of("models.yolo")


@cache
def ultralytics(module: str) -> Any:
    """A module of Ultralytics, imported so that it installs nothing, asks no server, changes no library."""
    os.environ.update(YOLO_AUTOINSTALL="false", YOLO_OFFLINE="true", YOLO_VERBOSE="false")
    os.environ.setdefault("YOLO_CONFIG_DIR", str(store.cache_folder()))
    found = importlib.import_module(module)
    from PIL import Image
    from ultralytics.utils import patches

    if Image.open is patches.image_open:
        Image.open = patches._image_open
    if torch.save is patches.torch_save:
        torch.save = patches._torch_save
    return found


def _at_cell(branch: nn.Module, level: Tensor, row: int, column: int) -> Tensor:
    """(N, K): what a head's convolutions say at one cell, run on only the cells that reach it.

    Exact: the crop is as wide as all kernels together, and ends where the map ends only where the map does.
    """
    reach = sum(m.kernel_size[0] // 2 for m in branch.modules() if isinstance(m, nn.Conv2d))
    top, left = max(0, row - reach), max(0, column - reach)
    crop = level[:, :, top:row + reach + 1, left:column + reach + 1]
    return branch(crop)[:, :, row - top, column - left]


def _cut(net: Any) -> Callable[[Tensor], Features]:
    """Pixels to the pyramid that the head reads: the layers before it, as Ultralytics wires them."""
    def see(x: Tensor) -> Features:
        now: Any = x
        seen: list[Any] = []
        for layer in net.model[:-1]:
            if layer.f != -1:
                now = seen[layer.f] if isinstance(layer.f, int) else [
                    now if j == -1 else seen[j] for j in layer.f]
            now = layer(now)
            seen.append(now if layer.i in net.save else None)
        return Features(tuple(now if j == -1 else seen[j] for j in net.model[-1].f))

    return see


def _cells(maps: Sequence[Tensor], strides: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """(A,) each: column, row and stride of every cell, level by level, as candidates are numbered."""
    columns, rows, widths = [], [], []
    for level, stride in zip(maps, strides, strict=True):
        height, width = level.shape[-2:]
        columns.append(torch.arange(width, device=level.device).repeat(height))
        rows.append(torch.arange(height, device=level.device).repeat_interleave(width))
        widths.append(torch.full((height * width,), stride, device=level.device))
    return torch.cat(columns), torch.cat(rows), torch.cat(widths)


def _numbered(seen: Prediction, anchors: list[int]) -> Prediction:
    """The same boxes, that were numbered among some candidates, with their numbers among all."""
    return replace(seen, boxes=tuple(replace(b, anchor=anchors[b.anchor]) for b in seen.boxes),
                   candidates=tuple(replace(b, anchor=anchors[b.anchor]) for b in seen.candidates))


class Branch(nn.Module):
    """A Detect head's convolutions of one kind: maps in, 1xCxA out, the levels one after the other.

    `boxes` say how far away a box's sides are, `classes` how sure each class is, both before any activation.
    """

    def __init__(self, boxes: Any, classes: Any):
        super().__init__()
        self.boxes, self.classes = boxes, classes
        self.eval()                            # else the exporter, when it is done, sets all to training

    def forward(self, *maps: Tensor) -> tuple[Tensor, Tensor]:
        raw, numbers = (torch.cat([convolve(level).flatten(2) for convolve, level in zip(
            convolutions, maps, strict=True)], 2) for convolutions in (self.boxes, self.classes))
        return raw, numbers


class Head:
    """A branch as it is read for all cells where no gradient is wanted, of maps of any height and width.

    The branch itself is run until compile() is called. It may be called from many threads at once.
    """

    def __init__(self, branch: Branch):
        self.state, self.bytes = compiled.NOT_YET, 0
        self.branch = branch
        self._hooks = compiled.forward_hooks(branch)
        self._session: Callable[[Sequence[Tensor]], tuple[Tensor, ...]] | None = None

    def __call__(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        if self._session and not any(self._hooks) and all(map(compiled.runs, maps)):
            return self._session(maps)
        return self.branch(*maps)

    def compile(self) -> None:
        with compiled.one_by_one:
            if self.state == compiled.NOT_YET:
                self._session, self.state = compiled.attempted(self._made, "a Detect head")

    def _made(self) -> Callable[[Sequence[Tensor]], tuple[Tensor, ...]]:
        compiled.not_beside_cpu(self.branch.parameters())
        return compiled.brought(compiled.key(self.branch), self._exported, self._checked)

    def _exported(self) -> bytes:
        inputs = {f"map {i}": level for i, level in enumerate(self._maps(2, 3))}
        axes = {name: {2: f"{name} down", 3: f"{name} across"} for name in inputs}
        return compiled.file_of(self.branch, inputs, ["boxes", "classes"],
                                {**axes, "boxes": {2: "cells"}, "classes": {2: "cells"}})

    def _checked(self, made: bytes) -> Callable[[Sequence[Tensor]], tuple[Tensor, ...]]:
        """The file's bytes as a function, seen to do what torch does with wide maps and with tall ones."""
        ready = compiled.opened(made)

        def read(maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
            given = {f"map {i}": level.numpy() for i, level in enumerate(maps)}
            return tuple(map(torch.from_numpy, ready.run(None, given)))

        for maps in (self._maps(2, 3), self._maps(5, 1)):
            with torch.no_grad():
                compiled.close(Features(rest=read(maps)), Features(rest=self.branch(*maps)))
        self.bytes += len(made)
        return read

    def _maps(self, height: int, width: int) -> list[Tensor]:
        """An example, the same every time; the coarsest level is of that size."""
        draw = torch.Generator().manual_seed(0)
        count = len(self.branch.boxes)
        channels = [next(m.in_channels for m in convolutions.modules() if isinstance(m, nn.Conv2d))
                    for convolutions in self.branch.boxes]
        return [torch.randn(1, c, height << count - i - 1, width << count - i - 1, generator=draw)
                for i, c in enumerate(channels)]


class Yolo:
    """An Ultralytics detection net as two halves: the layers up to the pyramid, and its Detect head."""

    def __init__(self, info: ModelInfo, net: Any):
        self.info = info
        self.net = net.eval().float().requires_grad_(False).to(device())
        nets.channels_last(self.net)
        self.offers = nets.OFFERS | nets.relu(net) | {"sides"}
        self._head = net.model[-1]
        self.strides = [int(s) for s in self._head.stride]
        self._padded = max(32, *self.strides)  # what Ultralytics' own predict pads to a multiple of
        self.body = compiled.Body(self.net, _cut, SIZE, self._padded)
        self._two_heads = getattr(self._head, "one2one_cv2", None) is not None
        kinds = (entries.ONE, entries.MANY) if self._two_heads else (entries.MANY,)
        self._read = {kind: Head(Branch(*self._branch(kind))) for kind in kinds}
        self.parts = (self.body, *self._read.values())
        names = net.names if isinstance(net.names, dict) else dict(enumerate(net.names))
        self.labels: dict[int, str] = {int(i): str(name) for i, name in names.items()}

    def prepare(self, frame: np.ndarray) -> Canvas:
        return letterbox(frame, SIZE, stride=self._padded)

    def encode(self, x: Tensor) -> Features:
        return self.body(x)

    def predict(self, features: Features, canvas: Canvas, threshold: float = 0.3, nms: float = 0.6,
                branch: str = entries.ONE, **settings: Any) -> Prediction:
        branch = branch if self._two_heads else entries.MANY
        with torch.no_grad():
            maps = [level[:1] for level in features.maps]
            (raw,), (numbers,) = self._read[branch](maps)
            # Thousands of cells say nothing: what a box is made of is worked out for the others alone.
            likely = (numbers.amax(0).sigmoid() > min(boxes.FLOOR, threshold)).nonzero()[:, 0]
            column, row, stride = (part[likely] for part in _cells(maps, self.strides))
            corners = torch.stack(self._corners(raw[:, likely].T, column, row, stride), -1)
            suppress = None if branch == entries.ONE else nms
            seen = boxes.keep(corners, numbers[:, likely].T.sigmoid(), canvas, self.labels, threshold,
                              suppress, branch if self._two_heads else "")
        seen = _numbered(seen, likely.tolist())
        second = self._two_heads and branch == entries.MANY
        return boxes.shifted(seen, numbers.shape[1]) if second else seen

    def score(self, features: Features, target: Target) -> Tensor:
        branch, level, row, column = self._place(features, target.anchor)
        if target.part == "class":
            numbers = self.logits_of(features, target)
            chosen = numbers[:, boxes.checked_class(target.index, self.labels)]
            if target.versus is None:
                return chosen
            return chosen - numbers[:, boxes.checked_class(target.versus, self.labels)]
        if target.part == "objectness":
            raise BadInput(f"{self.info.title} has no objectness, its class says it all; explain the class "
                           f"or a side: {', '.join(boxes.SIDES)}")
        raw = _at_cell(self._branch(branch)[0][level], features.maps[level], row, column)
        return boxes.side(self._corners(raw, column, row, self.strides[level]), target.part)

    def logits_of(self, features: Features, target: Target) -> Tensor:
        branch, level, row, column = self._place(features, target.anchor)
        return _at_cell(self._branch(branch)[1][level], features.maps[level], row, column)

    def probability(self, features: Features, target: Target) -> Tensor:
        boxes.confident(target.part)
        return self.score(features, target).sigmoid()

    def randomised(self, share: float, seed: int) -> Yolo:
        # The heads of all levels lie side by side, so no layer alone is the last of every box.
        head, whole = (sum(isinstance(m, nn.Conv2d) for m in part.modules())
                       for part in (self._head, self.net))
        return Yolo(self.info, randomised_copy(self.net, max(share, head / whole), seed))

    def _branch(self, branch: str) -> tuple[Any, Any]:
        """The box and class convolutions of one of the heads, level by level."""
        if branch == entries.ONE:
            return self._head.one2one_cv2, self._head.one2one_cv3
        return self._head.cv2, self._head.cv3

    def _place(self, features: Features, anchor: int | None) -> tuple[str, int, int, int]:
        """Head, level, row and column of a candidate; those of the second head count on after the first's."""
        starts = np.cumsum([0, *(level[0, 0].numel() for level in features.maps)]).tolist()
        total = starts[-1]
        if anchor is None or not 0 <= anchor < total * (2 if self._two_heads else 1):
            raise BadInput(f"a box of {self.info.title} is one of its candidates, got {anchor}; "
                           "say box:0, candidate:0 or near:X,Y")
        branch = entries.ONE if self._two_heads and anchor < total else entries.MANY
        within = anchor % total
        level = next(i for i, end in enumerate(starts[1:]) if within < end)
        row, column = divmod(within - starts[level], features.maps[level].shape[-1])
        return branch, level, row, column

    def _corners(self, raw: Tensor, column: Any, row: Any, stride: Any) -> tuple[Tensor, ...]:
        """Left, top, right, bottom on the canvas, from distances or (v8, v11) distributions of distances."""
        bins = self._head.reg_max
        if bins > 1:
            weights = torch.arange(bins, device=raw.device, dtype=raw.dtype)
            raw = raw.view(*raw.shape[:-1], 4, bins).softmax(-1) @ weights
        left, top, right, bottom = raw.unbind(-1)
        return ((column + 0.5 - left) * stride, (row + 0.5 - top) * stride,
                (column + 0.5 + right) * stride, (row + 0.5 + bottom) * stride)


def from_net(info: ModelInfo, net: Any) -> Yolo:
    """A detector around a DetectionModel, its batch-norms folded into the convolutions, both heads kept."""
    modules = ultralytics("ultralytics.nn.modules")
    fold = ultralytics("ultralytics.utils.torch_utils").fuse_conv_and_bn
    head = net.model[-1]
    if type(head) not in (modules.Detect, modules.v10Detect):
        raise BadInput(f"{info.name} ends in {type(head).__name__}; only nets for detection, "
                       "which end in Detect, are understood")
    for layer in net.modules():
        if type(layer) in (modules.Conv, modules.DWConv) and hasattr(layer, "bn"):
            layer.conv = fold(layer.conv, layer.bn)
            del layer.bn
            layer.forward = layer.forward_fuse
    return Yolo(info, net)


def _checkpoint(path: Path, may_run_code: bool) -> Any:
    """The net in a .pt file; an official one is read with nothing but known classes."""
    try:
        held, _ = ultralytics("ultralytics.nn.tasks").torch_safe_load(str(path), safe_only=not may_run_code)
        net = held.get("ema") or held["model"]
        return net.float()
    except (TypeError, KeyError, AttributeError, ImportError, RuntimeError) as problem:
        raise BadInput(f"{path.name} is not a YOLO checkpoint that can be read: {problem}") from problem


def offer(own: Own) -> ModelInfo:
    """The catalog's entry for a detector of the user's own. Loading it runs whatever code its file holds."""
    path = own.files[0]
    if not path.is_file() or path.suffix != ".pt":
        raise BadInput(f"the model to trust must be a .pt file, got {path}")
    return ModelInfo(f"own-{path.stem}", "detect", f"{path.stem} (your own)", False,
                     round(path.stat().st_size / 1e6, 1), "your own", path.name,
                     settings=(*entries.BOX_SETTINGS, entries.BRANCH),
                     note="loading it runs code from this file")


def load_own(own: Own, info: ModelInfo, progress: Progress = silent) -> Yolo:
    """That detector, ready to look."""
    return from_net(info, _checkpoint(own.files[0], may_run_code=True))


def load(name: str, progress: Progress = silent) -> Yolo:
    """A detector of the catalog, fetched first if it is not here."""
    return from_net(CATALOG[name], _checkpoint(store.fetch(f"{name}.pt", progress), may_run_code=False))
