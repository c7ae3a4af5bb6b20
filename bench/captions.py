"""How good the captions are: BLEU-1..4 and CIDEr on the dev split, greedy and with three beams.

    python -m bench.captions [--data ../shared/data/flickr8k] [--pictures 1000] [--model NAME ...]

Reads DATA/captions.tsv (split, image, caption) and DATA/images; goes through the product's own captioners.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import torch
from tqdm import tqdm

import models
from bench.table import Row, at_least, line
from training.captioner import metrics
from training.captioner.train import Refused, read_captions

MODELS = ("efficientnetv2-lstm", "efficientnet-lite0-lstm")
WIDTHS = {"greedy": 1, "beam 3": 3}
FEW = 100
GOALS = {"BLEU-4": 0.21, "CIDEr": 0.55}
DATA = Path(os.environ.get("SEEWHY_DATA") or Path(__file__).parents[2] / "shared" / "data") / "flickr8k"


def captions(name: str, folder: Path, pictures: Sequence[str]) -> dict[str, list[str]]:
    """What one captioner says about each picture, by way of saying it."""
    model = models.load(name)
    said: dict[str, list[str]] = {way: [] for way in WIDTHS}
    for picture in tqdm(pictures, desc=name, mininterval=5):
        frame = cv2.imread(str(folder / picture), cv2.IMREAD_COLOR_RGB)
        if frame is None:
            raise Refused(f"captions.tsv names {picture}, which is not a picture in {folder}")
        with torch.no_grad():
            canvas = model.prepare(frame)
            features = model.encode(canvas.x)
            for way, width in WIDTHS.items():
                said[way].append(str(model.predict(features, canvas, beam=width).caption))
    return said


def scores(
    folder: Path, count: int, names: Sequence[str] = MODELS
) -> dict[tuple[str, str], dict[str, float]]:
    """The five figures for each captioner and way of saying it, over the first `count` dev pictures."""
    dev = read_captions(folder)["dev"]
    pictures = sorted(dev)[:count]
    references = [dev[p] for p in pictures]
    return {
        (name, way): metrics.score(said, references)
        for name in names
        for way, said in captions(name, folder / "images", pictures).items()
    }


def table(found: dict[tuple[str, str], dict[str, float]]) -> str:
    """One line for each captioner and way."""
    head = f"{'captioner':<26}{'says':<9}" + "".join(f"{n:>8}" for n in next(iter(found.values())))
    body = [
        f"{name:<26}{way:<9}" + "".join(f"{v:8.3f}" for v in figures.values())
        for (name, way), figures in found.items()
    ]
    return "\n".join([head, *body])


def judged(found: dict[tuple[str, str], dict[str, float]]) -> Iterator[Row]:
    """Each captioner's three beams against the goals, and ours against the baseline."""
    for (name, way), figures in found.items():
        if way == "beam 3":
            for figure, goal in GOALS.items():
                yield at_least(f"{figure} of {name}, {way}", figures[figure], goal)
    if all((name, "beam 3") in found for name in MODELS):
        ours, theirs = (found[name, "beam 3"]["CIDEr"] for name in MODELS)
        yield at_least("CIDEr over the Lite0 baseline's", ours / theirs, 1.0)


def rows(quick: bool) -> Iterator[Row]:
    """Every figure of every captioner on the first hundred dev pictures, too few to judge the goals by."""
    return _figures(scores(DATA, FEW // 2 if quick else FEW))


def long_rows() -> Iterator[Row]:
    """On the thousand that the published figures are about, then the goals."""
    found = scores(DATA, 1000)
    yield from _figures(found)
    yield from judged(found)


def _figures(found: dict[tuple[str, str], dict[str, float]]) -> Iterator[Row]:
    for (name, way), figures in found.items():
        shown = " ".join(f"{value:.3f}" for value in figures.values())
        yield Row(f"{name}, {way}", figures["CIDEr"], note=f"CIDEr, after BLEU-1..4: {shown}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=MODELS)
    args = parser.parse_args(arguments)
    try:
        found = scores(args.data, args.pictures, args.model)
    except Refused as error:
        print(error, file=sys.stderr)
        return 2
    print(table(found))
    for row in judged(found):
        print(line(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
