"""What every model is: a frame becomes a canvas, a canvas features, features a prediction or one score."""
from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from models.info import (  # noqa: F401  (what a model takes and says belongs to what it is)
    SIDES,
    BadInput,
    Box,
    Choice,
    ModelInfo,
    Parameter,
    Prediction,
    Progress,
    Target,
    Word,
    checked,
    silent,
)

THREADS = max(1, int(os.environ.get("SEEWHY_THREADS", os.cpu_count() or 1)))
torch.set_num_threads(THREADS)


def device() -> torch.device:
    """The device torch models run on: SEEWHY_DEVICE, else the GPU when there is one."""
    return torch.device(os.environ.get("SEEWHY_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))


@dataclass(frozen=True)
class Canvas:
    """What a model is shown of a frame, and the exact way back: canvas = frame * scale + offset."""

    x: Tensor                                  # 1x3xhxw in [0,1]
    frame_size: tuple[int, int]                # height, width
    scale: tuple[float, float]                 # across, down: canvas pixels per frame pixel
    offset: tuple[float, float]                # where the frame's top left corner lies on the canvas

    @property
    def size(self) -> tuple[int, int]:
        return int(self.x.shape[-2]), int(self.x.shape[-1])

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas that show the picture and not padding."""
        (h, w), (fh, fw) = self.size, self.frame_size
        left, top = self.offset
        right, bottom = left + fw * self.scale[0], top + fh * self.scale[1]
        return (slice(max(0, round(top)), min(h, round(bottom))),
                slice(max(0, round(left)), min(w, round(right))))

    @property
    def area(self) -> tuple[float, float, float, float]:
        """The part of the frame that `inside` shows: left, top, right, bottom in frame pixels."""
        rows, columns = self.inside
        return tuple(self.to_frame(  # type: ignore[return-value]
            np.array([[columns.start, rows.start, columns.stop, rows.stop]], np.float64))[0].tolist())

    def to_frame(self, boxes: np.ndarray) -> np.ndarray:
        """Nx4 boxes (or Nx2 points) from canvas to frame pixels."""
        repeat = boxes.shape[-1] // 2
        return (boxes - np.tile(self.offset, repeat)) / np.tile(self.scale, repeat)

    def to_canvas(self, boxes: np.ndarray) -> np.ndarray:
        """Nx4 boxes (or Nx2 points) from frame to canvas pixels."""
        repeat = boxes.shape[-1] // 2
        return boxes * np.tile(self.scale, repeat) + np.tile(self.offset, repeat)

    def map_on_frame(self, heat: np.ndarray) -> np.ndarray:
        """A canvas map as a map of the whole frame; zero where the model saw nothing."""
        out = np.zeros(self.frame_size, np.float32)
        left, top, right, bottom = (round(v) for v in self.area)
        right, bottom = max(right, left + 1), max(bottom, top + 1)
        shown = np.ascontiguousarray(heat[self.inside], np.float32)
        out[top:bottom, left:right] = cv2.resize(shown, (right - left, bottom - top),
                                                 interpolation=cv2.INTER_LINEAR)[: out.shape[0] - top]
        return out


def _resized(frame: np.ndarray, width: int, height: int, average_below: float = 1.0) -> np.ndarray:
    """Area averaging when it shrinks to less than that share of the sides (no aliasing), else linear."""
    smaller = width * height < average_below ** 2 * frame.shape[0] * frame.shape[1]
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def _tensor(picture: np.ndarray) -> Tensor:
    planes = np.ascontiguousarray(picture.transpose(2, 0, 1))
    return torch.from_numpy(planes).to(device()).float().div_(255)[None]


def check_frame(frame: np.ndarray) -> None:
    """A frame is HxWx3 uint8 RGB with at least one pixel."""
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
        raise BadInput(f"a frame must be HxWx3 uint8 RGB, got shape {frame.shape} of {frame.dtype}")


def letterbox(frame: np.ndarray, size: int, grey: int = 114, stride: int | None = None) -> Canvas:
    """The whole frame, aspect kept, centred on grey: a square, or with a stride no more than it divides."""
    check_frame(frame)
    h, w = frame.shape[:2]
    ratio = size / max(h, w)
    width, height = max(1, round(w * ratio)), max(1, round(h * ratio))
    # What is left over is taken modulo the stride, as Ultralytics does: of 640 each side may be less by 32s.
    across, down = ((size - side) % (stride or size) for side in (width, height))
    left, top = across // 2, down // 2
    padded = np.full((height + down, width + across, 3), grey, np.uint8)
    # A camera frame shrinks by less than half, where linear skips no pixel and takes a quarter of the time.
    padded[top:top + height, left:left + width] = _resized(frame, width, height, average_below=0.5)
    return Canvas(_tensor(padded), (h, w), (width / w, height / h), (float(left), float(top)))


def centre_crop(frame: np.ndarray, size: int, share: float) -> Canvas:
    """The middle square, `share` of the short side, as ImageNet classifiers are evaluated."""
    check_frame(frame)
    h, w = frame.shape[:2]
    side = max(1, round(min(h, w) * share))
    left, top = (w - side) // 2, (h - side) // 2
    square = _resized(frame[top:top + side, left:left + side], size, size)
    ratio = size / side
    return Canvas(_tensor(square), (h, w), (ratio, ratio), (-left * ratio, -top * ratio))


def squeeze(frame: np.ndarray, size: int) -> Canvas:
    """The whole frame squeezed into a square, aspect not kept."""
    check_frame(frame)
    h, w = frame.shape[:2]
    return Canvas(_tensor(_resized(frame, size, size)), (h, w), (size / w, size / h), (0.0, 0.0))


@dataclass(frozen=True)
class Features:
    """What `encode` gives: the maps that CAM looks at, and what else the head needs (a class token, say)."""

    maps: tuple[Tensor, ...] = ()              # NxCxhxw each, finest detail last or first as the model likes
    rest: tuple[Tensor, ...] = ()              # N first

    def each(self, change: Callable[[Tensor], Tensor]) -> Features:
        """The same features with every tensor changed alike: detached, cut to some pictures, moved."""
        return Features(tuple(map(change, self.maps)), tuple(map(change, self.rest)))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.maps + self.rest


class Model(Protocol):
    """A model split at its last spatial map. `labels` maps class or word indices to names.

    `offers` says in words what methods may ask of it: `gradient` (encode and score can be differentiated),
    `maps` (features.maps are places of the picture), `net` (a torch net to look into, see Net), `relu` (whose
    activations are all ReLU), `attention` (see Attends), `words` (see Captioner), `sides` (a box's sides can
    be explained), `redraw` (randomised() works). Explainers add what they know of it (explainers/needs.py).
    """

    info: ModelInfo
    labels: dict[int, str]

    @property
    def offers(self) -> frozenset[str]: ...

    def prepare(self, frame: np.ndarray) -> Canvas:
        """HxWx3 uint8 RGB to a canvas in [0,1]."""

    def encode(self, x: Tensor) -> Features:
        """The maps Grad-CAM looks at, and what else the head needs; differentiable, normalising included."""

    def predict(self, features: Features, canvas: Canvas, **settings: Any) -> Prediction:
        """Boxes, classes or words; no gradient. Takes the parameters that info.settings declares."""

    def score(self, features: Features, target: Target) -> Tensor:
        """(N,): the one number to explain, before softmax; differentiable."""

    def logits_of(self, features: Features, target: Target) -> Tensor:
        """(N, K): every class's number where the target points (all classes, one anchor's, one word's place).

        Only differences between columns mean anything; differentiable. For log p/(1-p) and its two parts.
        """

    def probability(self, features: Features, target: Target) -> Tensor:
        """(N,) in [0,1]: what the score means to a person; differentiable.

        A class's share, a box's confidence, a word's probability, for a caption its geometric mean over the
        words; with a rival the share against it. A box's side has none: BadInput.
        """

    def randomised(self, share: float, seed: int) -> Model:
        """A copy, never this model, whose last `share` of layers has freshly drawn weights."""


@runtime_checkable
class Net(Protocol):
    """A model with a torch net that methods may hang hooks on."""

    net: nn.Module


@runtime_checkable
class Attends(Protocol):
    """A model whose layers look from token to token."""

    def attention(self, x: Tensor) -> tuple[Tensor, ...]:
        """Per layer, first to last: NxHxTxT, how much each token takes from each; the class token first."""


@runtime_checkable
class Captioner(Protocol):
    """What methods ask of a model that speaks, besides what every model can."""

    def caption_of(self, text: str) -> tuple[int, ...]:
        """A caption in words to its indices, or a sentence that names the word it does not know."""

    def word(self, text: str) -> int:
        """A word to its index, or such a sentence."""

    def read(self, features: Features, canvas: Canvas, words: tuple[int, ...]) -> Prediction:
        """A caption taken as given: each word's probability, and what nearly stood in its place."""

    def channel_gradients(self, features: Features, target: Target) -> Tensor:
        """TxC: every word's d log p / d features averaged over positions, as Grad-CAM weighs channels."""


AnyNet = TypeVar("AnyNet", bound=nn.Module)


def randomised_copy(net: AnyNet, share: float, seed: int) -> AnyNet:
    """A copy of a torch net whose last `share` of convolutions and linear layers are redrawn, head first."""
    other = copy.deepcopy(net)
    layers = [m for m in other.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.MultiheadAttention)]
    count = max(1, round(share * len(layers)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in layers[-count:]:
            weight, bias = ((layer.in_proj_weight, layer.in_proj_bias)
                            if isinstance(layer, nn.MultiheadAttention) else (layer.weight, layer.bias))
            weight.data = (torch.randn(weight.shape) * (2 / weight[0].numel()) ** 0.5).to(weight)
            if bias is not None:
                bias.data.zero_()
    return other
