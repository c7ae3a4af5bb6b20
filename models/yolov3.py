"""YOLOv3-tiny from its darknet weights, split at the bottleneck that both of its heads read.

Why there: from these maps two or three convolutions still run, which is what Grad-CAM and ODAM need, and one
candidate's numbers depend on 3x3 cells of them, so that explaining a box costs next to nothing. Measured on a
photographed bus, ODAM here finds 11 times more evidence inside the box for `bus` than for a random class; on
the two maps before, it finds less than for a random class.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import boxes, compiled, entries, nets, store
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
from models.coco import COCO
from models.darknet import read_convolutions

SIZE = 416
# The published file reads 10,14 23,27 37,58 for the fine scale, but the weights were trained one anchor on:
# only so do small boxes (the ties of zidane.jpg) fit their objects.
ANCHORS = (((81, 82), (135, 169), (344, 319)), ((23, 27), (37, 58), (81, 82)))
STRIDES = (32, 16)
CELLS = tuple(SIZE // s for s in STRIDES)
COUNTS = tuple(3 * n * n for n in CELLS)
# (out, in, kernel, batch-normalised), in the order of the file.
LAYERS = [(16, 3, 3, True), (32, 16, 3, True), (64, 32, 3, True), (128, 64, 3, True), (256, 128, 3, True),
          (512, 256, 3, True), (1024, 512, 3, True), (256, 1024, 1, True), (512, 256, 3, True),
          (255, 512, 1, False), (128, 256, 1, True), (256, 384, 3, True), (255, 256, 1, False)]
HEADS = 5                   # of these, the last ones, behind the split

CATALOG = entries.of("models.yolov3")


class Convolutions(nn.Module):
    """The thirteen convolutions by number; `heads` reads two maps everywhere, `head_at` at one cell."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(into, out, kernel, padding=kernel // 2),
                          nn.LeakyReLU(0.1, inplace=True) if leaky else nn.Identity())
            for out, into, kernel, leaky in LAYERS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        layers = self.layers
        for i in range(4):
            x = F.max_pool2d(layers[i](x), 2)
        fine = layers[4](x)
        x = layers[5](F.max_pool2d(fine, 2))
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 2, stride=1)
        return layers[7](layers[6](x)), fine

    def heads(self, coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        layers = self.layers
        return layers[9](layers[8](coarse)), layers[12](layers[11](self._joined(coarse, fine)))

    def _joined(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """What the fine head reads: the fine map, and the coarse one beside it at twice its size."""
        return torch.cat([F.interpolate(self.layers[10](coarse), scale_factor=2.0), fine], 1)

    def head_at(self, coarse: Tensor, fine: Tensor, place: Place) -> Tensor:
        """(N, 255): the same numbers as `heads` at one cell, from the cells around it that reach it alone.

        Exact, since the cut is as wide as the one 3x3 kernel and ends early only where the map does.
        """
        if place.scale == 0:
            return self._at(9, self._at(8, _around(coarse, place.row, place.column)))
        top, left = max(place.row - 1, 0) // 2, max(place.column - 1, 0) // 2
        bottom, right = (place.row + 1) // 2 + 1, (place.column + 1) // 2 + 1
        both = self._joined(coarse[:, :, top:bottom, left:right],
                            fine[:, :, 2 * top:2 * bottom, 2 * left:2 * right])
        return self._at(12, self._at(11, _around(both, place.row - 2 * top, place.column - 2 * left)))

    def _at(self, number: int, cells: Tensor) -> Tensor:
        """(N, out): a convolution as the one product that it is at one cell, some five times as fast."""
        convolution, activation = cast("tuple[nn.Conv2d, nn.Module]", self.layers[number].children())
        return activation(F.linear(cells.flatten(1), convolution.weight.flatten(1), convolution.bias))


def _around(maps: Tensor, row: int, column: int) -> Tensor:
    """NxCx3x3: a cell and its neighbours, zero where the map ends."""
    return F.pad(maps, (1, 1, 1, 1))[:, :, row:row + 3, column:column + 3]


class Place(NamedTuple):
    """Where a candidate's numbers are: which scale, which of its anchors, which cell."""

    scale: int
    anchor: int
    row: int
    column: int


def place_of(anchor: int | None) -> Place:
    """From a candidate's number, counted scale by scale, anchor by anchor, row by row."""
    if anchor is None or not 0 <= anchor < sum(COUNTS):
        raise BadInput(f"a box of YOLOv3-tiny is one of its candidates 0 to {sum(COUNTS) - 1}, got {anchor}; "
                       "say box:0, candidate:0 or near:X,Y")
    scale = int(anchor >= COUNTS[0])
    within, cells = anchor - scale * COUNTS[0], CELLS[scale]
    return Place(scale, within // cells ** 2, within // cells % cells, within % cells)


def _corners(raw: Tensor, grid: tuple[Any, Any, Any, Any], stride: int) -> tuple[Tensor, ...]:
    """Left, top, right, bottom on the canvas from the net's four numbers (last dimension)."""
    column, row, width, height = grid
    x, y = (raw[..., 0].sigmoid() + column) * stride, (raw[..., 1].sigmoid() + row) * stride
    half_w, half_h = raw[..., 2].exp() * width / 2, raw[..., 3].exp() * height / 2
    return x - half_w, y - half_h, x + half_w, y + half_h


class YoloV3Tiny:
    """Boxes, and for each of them a score that only its own candidate's numbers make up."""

    def __init__(self, info: ModelInfo, net: Convolutions):
        self.info, self.labels = info, dict(enumerate(COCO))
        self.net = net.eval().requires_grad_(False).to(device())
        nets.channels_last(*self.net.layers[:-HEADS])   # a head's are read as one product a cell
        self.offers = nets.OFFERS | nets.relu(net) | {"sides"}
        self.body = compiled.Body(self.net, lambda net: lambda x: Features(net(x)), SIZE)
        self.parts = (self.body,)
        self._grids = []
        for anchors, stride, cells in zip(ANCHORS, STRIDES, CELLS, strict=True):
            rows, columns = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij")
            sizes = torch.tensor(anchors, dtype=torch.float32).repeat_interleave(cells * cells, 0)
            across, down = columns.flatten().repeat(3).to(device()), rows.flatten().repeat(3).to(device())
            width, height = sizes.to(device()).unbind(1)
            self._grids.append(((across, down, width, height), stride))

    def prepare(self, frame: np.ndarray) -> Canvas:
        return letterbox(frame, SIZE)

    def encode(self, x: Tensor) -> Features:
        return self.body(x)

    def predict(self, features: Features, canvas: Canvas, threshold: float = 0.3, nms: float = 0.35,
                **settings: Any) -> Prediction:
        with torch.no_grad():
            found = []
            heads = self.net.heads(*features.maps)
            for out, (grid, stride) in zip(heads, self._grids, strict=True):
                raw = out[0].view(3, 85, -1).transpose(1, 2).reshape(-1, 85)
                found.append((torch.stack(_corners(raw, grid, stride), -1),
                              raw[:, 4:5].sigmoid() * raw[:, 5:].sigmoid()))
            corners, confidences = (torch.cat(part) for part in zip(*found, strict=True))
            return boxes.keep(corners, confidences, canvas, self.labels, threshold, nms)

    def score(self, features: Features, target: Target) -> Tensor:
        place = place_of(target.anchor)
        raw = self._raw(features, place)
        if target.part == "class":
            number = self._log_confidences(raw)
            chosen = number[:, boxes.checked_class(target.index, self.labels)]
            if target.versus is None:
                return chosen
            return chosen - number[:, boxes.checked_class(target.versus, self.labels)]
        if target.part == "objectness":
            return F.logsigmoid(raw[:, 4])
        stride, (width, height) = STRIDES[place.scale], ANCHORS[place.scale][place.anchor]
        return boxes.side(_corners(raw, (place.column, place.row, width, height), stride), target.part)

    def logits_of(self, features: Features, target: Target) -> Tensor:
        return self._log_confidences(self._raw(features, place_of(target.anchor)))

    def probability(self, features: Features, target: Target) -> Tensor:
        boxes.confident(target.part)
        score = self.score(features, target)
        return score.exp() if target.versus is None or target.part != "class" else score.sigmoid()

    def randomised(self, share: float, seed: int) -> YoloV3Tiny:
        # The two heads lie side by side, so none of their layers alone is the last of every box.
        share = max(share, HEADS / len(LAYERS))
        return YoloV3Tiny(self.info, randomised_copy(self.net, share, seed))

    def _raw(self, features: Features, place: Place) -> Tensor:
        coarse, fine = features.maps
        numbers = self.net.head_at(coarse, fine, place)
        return numbers.view(-1, 3, 85)[:, place.anchor]

    @staticmethod
    def _log_confidences(raw: Tensor) -> Tensor:
        """(N, 80): log of what is shown as confidence, for every class."""
        return F.logsigmoid(raw[:, 4:5]) + F.logsigmoid(raw[:, 5:])


def from_file(path: Path) -> YoloV3Tiny:
    """The detector of a darknet weights file."""
    net = Convolutions()
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    for layer, (weight, bias) in zip(convolutions, read_convolutions(path, LAYERS), strict=True):
        layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return YoloV3Tiny(CATALOG["yolov3-tiny"], net)


def load(name: str, progress: Progress = silent) -> YoloV3Tiny:
    """The embedded detector, ready to look."""
    return from_file(store.fetch(CATALOG[name].assets[0], progress))
