"""YOLOv3-tiny once more, in plain numpy and straight from the file: the oracle for models/yolov3.py."""
from __future__ import annotations

from pathlib import Path

import numpy as np

ANCHORS = {13: ((81, 82), (135, 169), (344, 319)), 26: ((23, 27), (37, 58), (81, 82))}


def convolve(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A same-size convolution of CxHxW, one shifted matrix product per kernel cell."""
    out, _, kernel, _ = weight.shape
    padded = np.pad(x, ((0, 0), (kernel // 2,) * 2, (kernel // 2,) * 2))
    total = np.zeros((out, *x.shape[1:]))
    for i in range(kernel):
        for j in range(kernel):
            shifted = padded[:, i:i + x.shape[1], j:j + x.shape[2]]
            total += np.tensordot(weight[:, :, i, j], shifted, 1)
    return total


def pool(x: np.ndarray, stride: int) -> np.ndarray:
    """The maximum of 2x2 neighbours; with stride 1 the last row and column see only themselves."""
    if stride == 2:
        return x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2).max((2, 4))
    wide = np.pad(x, ((0, 0), (0, 1), (0, 1)), constant_values=-np.inf)
    return np.maximum.reduce([wide[:, i:i + x.shape[1], j:j + x.shape[2]] for i in (0, 1) for j in (0, 1)])


class Reader:
    """The file's numbers, taken convolution by convolution."""

    def __init__(self, path: Path):
        self.numbers, self.at = np.frombuffer(path.read_bytes()[20:], "<f4").astype(np.float64), 0

    def take(self, *shape: int) -> np.ndarray:
        count = int(np.prod(shape))
        self.at += count
        return self.numbers[self.at - count:self.at].reshape(shape)

    def block(self, x: np.ndarray, out: int, kernel: int) -> np.ndarray:
        """Convolution, batch-norm as darknet writes it, leaky activation."""
        beta, gamma, mean, variance = (self.take(out) for _ in range(4))
        y = convolve(x, self.take(out, len(x), kernel, kernel))
        y = gamma[:, None, None] * (y - mean[:, None, None]) / (np.sqrt(variance)[:, None, None] + 1e-6)
        y += beta[:, None, None]
        return np.where(y > 0, y, 0.1 * y)

    def last(self, x: np.ndarray) -> np.ndarray:
        bias = self.take(255)
        return convolve(x, self.take(255, len(x), 1, 1)) + bias[:, None, None]


def detect(path: Path, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All candidates of a 3x416x416 picture: (A,4) canvas boxes and (A,80) confidences."""
    net = Reader(path)
    for out in (16, 32, 64, 128):
        x = pool(net.block(x, out, 3), 2)
    fine = net.block(x, 256, 3)
    x = net.block(pool(fine, 2), 512, 3)
    bottleneck = net.block(net.block(pool(x, 1), 1024, 3), 256, 1)
    coarse = net.last(net.block(bottleneck, 512, 3))
    wide = net.block(bottleneck, 128, 1).repeat(2, 1).repeat(2, 2)
    finer = net.last(net.block(np.concatenate([wide, fine]), 256, 3))
    assert net.at == len(net.numbers), f"{net.at} of {len(net.numbers)} numbers were read"
    boxes, confidences = zip(*(_decode(raw) for raw in (coarse, finer)), strict=True)
    return np.concatenate(boxes), np.concatenate(confidences)


def _decode(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cells = raw.shape[-1]
    stride = 416 / cells
    boxes, confidences = [], []
    for anchor, (width, height) in zip(raw.reshape(3, 85, cells, cells), ANCHORS[cells], strict=True):
        for row in range(cells):
            for column in range(cells):
                x, y, w, h, objectness, *classes = anchor[:, row, column]
                middle_x, middle_y = (_sigmoid(x) + column) * stride, (_sigmoid(y) + row) * stride
                half_w, half_h = width * np.exp(w) / 2, height * np.exp(h) / 2
                boxes.append([middle_x - half_w, middle_y - half_h, middle_x + half_w, middle_y + half_h])
                confidences.append(_sigmoid(objectness) * _sigmoid(np.array(classes)))
    return np.array(boxes), np.array(confidences)


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def suppressed(boxes: np.ndarray, confidences: np.ndarray, threshold: float, nms: float) -> list[int]:
    """The kept candidates, best first: greedy, class by class."""
    classes, best = confidences.argmax(1), confidences.max(1)
    kept: list[int] = []
    for i in np.argsort(-best):
        if best[i] < threshold:
            break
        if all(classes[i] != classes[j] or overlap(boxes[i], boxes[j]) <= nms for j in kept):
            kept.append(int(i))
    return kept


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return width * height / (sum(areas) - width * height)
