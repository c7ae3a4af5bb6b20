"""Are they undesirable? What taking them away does to the true class, over a folder of labelled pictures."""
from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

import models
from explainers.base import Look
from explainers.pixels import hidden, shown
from explainers.undesirable import odds_of, search
from explainers.whatif import at_random, hottest
from models.base import BadInput, Model, Target

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)
DRAWS = 4


@dataclass(frozen=True)
class Row:
    """One share of the picture taken away: the mean change of p of the true class, and how often it helps."""

    share: float
    change: float
    improved: float                # share of pictures whose p rises
    righted: float                 # share of the wrong ones that become right
    random: float                  # the same for random regions of the same area
    random_improved: float
    random_righted: float
    other: float                   # the same pixels, replaced by something else than they were found with
    other_improved: float


def labelled(folder: Path) -> list[tuple[int, Path]]:
    """Class index and file of every NNN_name.jpg."""
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise BadInput(f"there is no JPEG in {folder}; name a folder of pictures called NNN_name.jpg")
    pairs = []
    for path in files:
        number = path.name.partition("_")[0]
        if not number.isdigit():
            raise BadInput(f"{path.name} does not say its class; call the files NNN_name.jpg, "
                           "NNN the class index")
        pairs.append((int(number), path))
    return pairs


def measure(model: Model, pictures: Iterable[tuple[int, Path]], kind: str = "F-TC", iterations: int = 60,
            replace: str = "blur", other: str = "mean", only_wrong: bool = False,
            seen: list[bool] | None = None, most: int | None = None) -> list[Row]:
    """The table, a row a share, of the first `most` pictures. `seen` collects whether the model was right."""
    found: list[list[list[float]]] = []
    right: list[bool] = [] if seen is None else seen
    for index, path in pictures:
        if index not in model.labels:
            raise BadInput(f"{path.name}: class must be from 0 to {max(model.labels)}, got {index}")
        frame = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if frame is None:
            raise BadInput(f"{path.name} is no picture that can be read; take it out of the folder")
        look = Look(model, frame)
        correct = look.prediction.classes[0].index == index
        if only_wrong and correct:
            continue
        right.append(correct)
        found.append(_one(look, index, kind, iterations, replace, other))
        if len(found) == most:
            break
    if not found:
        raise BadInput("the model is right about every picture: there is nothing to mend")
    table = np.array(found)                    # pictures x shares x (change, top-1) of ours, random, other
    wrong = ~np.array(right[-len(found):])
    rows = []
    for i, share in enumerate(SHARES):
        at = table[:, i]
        righted = at[wrong] if wrong.any() else np.zeros((1, at.shape[1]))
        rows.append(Row(share, at[:, 0].mean(), (at[:, 0] > 0).mean(), righted[:, 1].mean(),
                        at[:, 2].mean(), at[:, 4].mean(), righted[:, 3].mean(),
                        at[:, 5].mean(), (at[:, 5] > 0).mean()))
    return rows


def _one(look: Look, index: int, kind: str, iterations: int, replace: str,
         other: str) -> list[list[float]]:
    """For each share: change and top-1 of ours; change, top-1, improvement of random; change with other."""
    model, target = look.model, Target(index=index)
    instead, inside = hidden(look, replace), look.canvas.inside
    *_, (m, _, _) = search(odds_of(model, target), look.x, instead, shown(look), kind, iterations)
    heat = (1 - m)[0, 0].cpu().numpy()
    draw = torch.Generator().manual_seed(index)
    masks = [hottest(heat, inside, share) for share in SHARES]
    changed = [_without(look.x, mask, instead) for mask in masks]
    drawn_masks = [at_random(mask, inside, draw) for mask in masks for _ in range(DRAWS)]
    changed += [_without(look.x, mask, instead) for mask in drawn_masks]
    changed += [_without(look.x, mask, hidden(look, other)) for mask in masks]
    with torch.no_grad():
        p = torch.cat([model.logits_of(model.encode(torch.cat(changed[i:i + 8])), target).softmax(1)
                       for i in range(0, len(changed), 8)])
        first = float(model.logits_of(look.features, target).softmax(1)[0, index])
    gain, top = (p[:, index] - first).cpu().numpy(), (p.argmax(1) == index).cpu().numpy()
    count, rows = len(SHARES), []
    for i in range(count):
        drawn = slice(count + i * DRAWS, count + (i + 1) * DRAWS)
        rows.append([float(gain[i]), float(top[i]), float(gain[drawn].mean()), float(top[drawn].mean()),
                     float((gain[drawn] > 0).mean()), float(gain[count * (1 + DRAWS) + i])])
    return rows


def _without(x: Tensor, mask: np.ndarray, instead: Tensor) -> Tensor:
    return torch.where(torch.from_numpy(mask).to(x.device), instead, x)


def table(rows: Sequence[Row]) -> str:
    """For people to read."""
    lines = ["taken away | change of p  improved  righted | random: change  improved  righted | "
             "other r: change"]
    for r in rows:
        lines.append(f"{f'{100 * r.share:.0f} %':>10} | {r.change:+11.3f} {r.improved:9.0%} {r.righted:8.0%} "
                     f"| {r.random:+14.3f} {r.random_improved:9.0%} {r.random_righted:8.0%} "
                     f"| {r.other:+15.3f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """python -m explainers.undesirable --data DIR"""
    parser = argparse.ArgumentParser("python -m explainers.undesirable", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="pictures called NNN_name.jpg")
    parser.add_argument("--limit", type=int, help="only the first so many")
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--kind", choices=("F-TC", "F-NTC"), default="F-TC")
    parser.add_argument("--replace", choices=("blur", "mean", "noise"), default="blur")
    parser.add_argument("--other", choices=("blur", "mean", "noise"), default="mean")
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--only-wrong", action="store_true", help="leave out what the model is right about")
    given = parser.parse_args(arguments)
    try:
        right: list[bool] = []
        rows = measure(models.load(given.model), labelled(given.data)[: given.limit], given.kind,
                       given.iterations, given.replace, given.other, given.only_wrong, right)
    except BadInput as problem:
        print(problem, file=sys.stderr)
        return 2
    plural = "" if len(right) == 1 else "s"
    print(f"{len(right)} picture{plural}, {right.count(False)} of them wrong; {given.kind}, "
          f"{given.iterations} iterations, r = {given.replace}, other r = {given.other}")
    print(table(rows))
    return 0
