"""ParchGrad: gradients that flow back only through the channels that this picture or class switches on.

    python -m explainers.parchgrad --data FOLDER [FOLDER ...] --model NAME

It writes the channel statistics to explainers/statistics/NAME.npz: for each convolution of the backbone
the mean and deviation of its channels' global averages over the pictures, and the same for each class that
has several pictures (a class is the number that the name of a file or its folder starts with).
"""
from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from explainers import needs
from explainers.base import Explanation, Look, method
from explainers.gradient import integrated, per_pixel, smoothed, torch_net
from explainers.pixels import pixel_gradient
from models.base import BadInput, Model, Target

SIGNIFICANT = 1.645                 # one-sided t at 5 % for many pictures
Statistics = dict[str, np.ndarray]
_ORDERS: WeakKeyDictionary[nn.Module, tuple[str, ...]] = WeakKeyDictionary()
Chosen = Callable[[str, Tensor], Tensor]
"""A convolution's name and its NxC global averages to the NxC mask of channels that count (H)."""


@method("ParchGrad", group="gradients", tasks=("classify", "detect"), needs=("gradient", "net", "statistics"),
        shows="Saliency through the channels that this picture switches on more than others do.",
        cannot="Not what the other channels had to say; it needs statistics of the net's channels.",
        of=("saliency", "smoothgrad", "integrated gradients"), channels=("instance", "class"),
        threshold=(0.0, -2.0, 3.0), depth=(0.5, 0.05, 1.0))
def parchgrad(look: Look, target: Target, of: str, channels: str, threshold: float,
              depth: float) -> Iterator[Explanation]:
    """Park, Jeon & Choi 2023: L's gradients are dropped, H's scaled by sqrt((M+N)/M) to keep the variance."""
    statistics = statistics_of(look.model.info.name)
    chosen = by_class(statistics, target.index) if channels == "class" else by_picture(statistics, threshold)
    forward = partitioned(look, target, chosen, depth)
    if of == "saliency":
        yield Explanation(per_pixel(pixel_gradient(forward, look.x)[0]))
    elif of == "smoothgrad":
        for mean, done in smoothed(forward, look.x, samples=24, noise=0.15, seed=0):
            yield Explanation(per_pixel(mean), progress=done / 24)
    else:
        for e in integrated(look, target, forward, 25, "black"):
            e.heat = np.abs(e.heat)
            e.note = "Pruned gradients do not add up to the score: read the places, not the sums." * e.done
            yield e


def by_picture(statistics: Statistics, threshold: float) -> Chosen:
    """H are the channels whose average is above the usual one by more than `threshold` deviations."""
    def chosen(layer: str, averages: Tensor) -> Tensor:
        mean, deviation = (torch.as_tensor(statistics[f"{layer}/{what}"]).to(averages)
                           for what in ("mean", "deviation"))
        return (averages - mean) / deviation.clamp(min=1e-6) > threshold
    return chosen


def by_class(statistics: Statistics, index: int | None) -> Chosen:
    """H are the channels that are higher on pictures of the class than on others (Welch's t-test)."""
    key = f"class {index}"
    if f"{key}/count" not in statistics:
        known = sorted(int(k[6:-6]) for k in statistics if re.fullmatch(r"class \d+/count", k))
        raise BadInput(f"the channel statistics hold no class {index}, only {known or 'all together'}; "
                       "take channels=instance, or make them from several pictures of each class")
    few, many = float(statistics[f"{key}/count"]), float(statistics["count"])

    def chosen(layer: str, averages: Tensor) -> Tensor:
        difference = statistics[f"{key}/{layer}/mean"] - statistics[f"{layer}/mean"]
        error = np.sqrt(statistics[f"{key}/{layer}/deviation"] ** 2 / few
                        + statistics[f"{layer}/deviation"] ** 2 / many)
        mask = torch.as_tensor(difference / np.maximum(error, 1e-9) > SIGNIFICANT).to(averages.device)
        return mask.expand_as(averages)
    return chosen


def partitioned(look: Look, target: Target, chosen: Chosen, depth: float) -> Callable[[Tensor], Tensor]:
    """Pixels to score, with gradients partitioned in the last `depth` of the backbone's convolutions.

    The hooks live as long as the forward pass: the backward pass is changed by the graph it leaves.
    """
    net = torch_net(look.model)

    def forward(x: Tensor) -> Tensor:
        layers = list(reached(look.model, net, look.x))
        last = layers[len(layers) - max(1, round(depth * len(layers))):]

        def watch(layer: str, _: nn.Module, out: Tensor) -> None:
            if out.requires_grad:
                keep = chosen(layer, out.detach().mean((2, 3)))
                out.register_hook(lambda gradient: partition(gradient, keep))

        with watched(net, last, watch):
            features = look.model.encode(x)
        return look.model.score(features, target)

    return forward


def partition(gradient: Tensor, keep: Tensor) -> Tensor:
    """NxCxhxw gradient: zero on L, scaled on H such that the summed gradient varies over space as before.

    Where no channel is in H, or H carries nothing that varies, the gradient stays as it is.
    """
    mask = keep[:, :, None, None].to(gradient.dtype)
    m, n = (part.sum(1).flatten(1).var(1, unbiased=False)
            for part in (gradient * mask, gradient * (1 - mask)))
    scale = torch.where(m > 0, ((m + n) / m.clamp(min=torch.finfo(m.dtype).tiny)).sqrt(), 1.0)
    pruned = gradient * mask * scale[:, None, None, None]
    return torch.where((m > 0)[:, None, None, None], pruned, gradient)


@contextmanager
def watched(net: nn.Module, layers: list[str],
            watch: Callable[[str, nn.Module, Tensor], None]) -> Iterator[None]:
    """Calls watch(name, module, output) in a forward pass; no hook stays behind, whatever happens."""
    modules, handles = dict(net.named_modules()), []
    try:
        for name in layers:
            handles.append(modules[name].register_forward_hook(
                lambda module, _, out, name=name: watch(name, module, out)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def reached(model: Model, net: nn.Module, x: Tensor) -> tuple[str, ...]:
    """The convolutions that `encode` runs through, in that order; found once for each net."""
    if net not in _ORDERS:
        order: list[str] = []
        names = [n for n, m in net.named_modules() if isinstance(m, nn.Conv2d)]
        with torch.no_grad(), watched(net, names, lambda name, *_: order.append(name)):
            model.encode(x)
        _ORDERS[net] = tuple(dict.fromkeys(order))
    return _ORDERS[net]


@cache
def statistics_of(name: str) -> Statistics:
    """The shipped or made statistics of a model that has some."""
    with np.load(needs.STATISTICS / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: arrays[key].astype(np.float32) for key in arrays.files}


class _Moments:
    """Mean and deviation of vectors that come one by one."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, np.zeros(1), np.zeros(1)

    def add(self, values: np.ndarray) -> None:
        self.count, self.total, self.squares = self.count + 1, self.total + values, self.squares + values ** 2

    @property
    def mean(self) -> np.ndarray:
        return self.total / self.count

    @property
    def deviation(self) -> np.ndarray:
        return np.sqrt(np.maximum(self.squares / self.count - self.mean ** 2, 0))


def measure(model: Model, pictures: list[Path], tell: Callable[[int, int], Any] = lambda done, total: None
            ) -> Statistics:
    """Channel statistics of a torch model over picture files."""
    net = torch_net(model)
    every: dict[str, _Moments] = defaultdict(_Moments)
    by: dict[int, dict[str, _Moments]] = defaultdict(lambda: defaultdict(_Moments))
    for done, file in enumerate(pictures, 1):
        picture = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
        if picture is None:
            raise BadInput(f"{file} is not a picture that can be read")
        x, label = model.prepare(picture).x, _class_of(file)

        def note(layer: str, _: nn.Module, out: Tensor, label: int | None = label) -> None:
            averages = out.mean((2, 3))[0].cpu().double().numpy()
            every[layer].add(averages)
            if label is not None:
                by[label][layer].add(averages)

        with torch.no_grad(), watched(net, list(reached(model, net, x)), note):
            model.encode(x)
        tell(done, len(pictures))
    found: Statistics = {"count": np.asarray(len(pictures))}
    for layer, moments in every.items():
        found |= {f"{layer}/mean": moments.mean, f"{layer}/deviation": moments.deviation}
    for label, layers in by.items():
        count = next(iter(layers.values())).count
        if count > 1:                                      # one picture says nothing of a class's spread
            found[f"class {label}/count"] = np.asarray(count)
            for layer, moments in layers.items():
                found |= {f"class {label}/{layer}/mean": moments.mean,
                          f"class {label}/{layer}/deviation": moments.deviation}
    return {key: np.asarray(value, np.float16 if "/" in key and "count" not in key else np.float32)
            for key, value in found.items()}


def _class_of(file: Path) -> int | None:
    for text in (file.name, file.parent.name):
        number = re.match(r"(\d{1,4})(?=_|$)", text)
        if number:
            return int(number[1])
    return None


def main(arguments: list[str] | None = None) -> int:
    """The command line of this file."""
    import models

    parser = argparse.ArgumentParser("python -m explainers.parchgrad", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of pictures")
    parser.add_argument("--model", required=True, help="a model of the catalog")
    parser.add_argument("--limit", type=int, default=0, help="at most so many pictures of each folder")
    given = parser.parse_args(arguments)
    pictures: list[Path] = []
    for folder in given.data:
        found = sorted(f for f in folder.rglob("*") if f.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
        pictures += found[::max(1, len(found) // given.limit)][:given.limit] if given.limit else found
    if not pictures:
        print(f"no picture in {', '.join(map(str, given.data))}", file=sys.stderr)
        return 1
    try:
        statistics = measure(models.load(given.model), pictures, lambda done, total: print(
            f"\r{done} of {total} pictures", end="\n" if done == total else "", file=sys.stderr))
    except BadInput as problem:
        print(problem, file=sys.stderr)
        return 1
    needs.STATISTICS.mkdir(exist_ok=True)
    file = needs.STATISTICS / f"{given.model}.npz"
    np.savez_compressed(file, allow_pickle=False, **statistics)
    print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
