"""Is the explanation true? Deletion and insertion, randomised weights, random classes, energy in a box."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from explainers.base import METHODS, Explanation, Look, steps
from explainers.needs import missing
from explainers.pixels import at_once, hidden, probability, shown
from models.base import BadInput, Target

STAGES = (("last layer", 0.0), ("last 10 %", 0.1), ("last half", 0.5), ("all layers", 1.0))
CURVES = ("deletion_black", "deletion_blur", "insertion_blur")
SAME = 0.5                    # a rank correlation above this on random weights is a map that learned nothing

Corners = tuple[float, float, float, float]


def curves(look: Look, explanation: Explanation, target: Target, steps: int = 32) -> Explanation:
    """Deletion (black, blur) and insertion (blur) curves and their areas; see curve_steps."""
    *_, last = curve_steps(look, explanation, target, steps)
    return last


def curve_steps(look: Look, explanation: Explanation, target: Target, steps: int = 32,
                names: tuple[str, ...] = CURVES) -> Iterator[Explanation]:
    """Petsiuk et al. 2018: the hottest pixels go, or come, first; the area says how fast the answer follows.

    What is drawn is the probability of the class, the confidence of the box, or the (mean) probability of the
    word or caption. A good map has a small deletion and a large insertion area.
    """
    x, weigh = look.x.detach(), probability(look, target)
    order = ranking(look, explanation.heat)
    kinds = {name: hidden(look, name.rpartition("_")[2]) for name in names}
    counts = [round(i * len(order) / steps) for i in range(steps + 1)]
    found: dict[str, list[float]] = {name: [] for name in kinds}
    done, total = 0, len(kinds) * len(counts)
    for name, instead in kinds.items():
        start, towards = (instead, x) if name.startswith("insertion") else (x, instead)
        for first in range(0, len(counts), at_once(x)):
            batch = start.repeat(len(counts[first:first + at_once(x)]), 1, 1, 1)
            for picture, count in zip(batch.flatten(2), counts[first:first + at_once(x)], strict=True):
                picture[:, order[:count]] = towards[0].flatten(1)[:, order[:count]]
            with torch.no_grad():
                found[name] += weigh(look.model.encode(batch)).tolist()
            done += len(batch)
            if done < total:
                yield _drawn(explanation, found, done / total)
    e = _drawn(explanation, found, 1.0)
    e.numbers |= {f"area {name}": area(values) for name, values in found.items()}
    for box in (*look.prediction.boxes, *look.prediction.candidates):
        if box.anchor == target.anchor:
            e.numbers |= in_box(explanation, box.box)
    if _class_matters(explanation):
        ratio = evidence(look, explanation.method, target, {}, n=5)
        if ratio is not None and target.part != "class":
            e.numbers["raw maximum over that of other boxes"] = ratio
        elif ratio is not None:
            e.numbers["raw maximum over that of random classes"] = ratio
            if ratio <= 1:
                e.note = "No evidence: maps for random classes are just as strong on this picture."
    yield e


def _drawn(explanation: Explanation, found: dict[str, list[float]], progress: float) -> Explanation:
    return replace(explanation, curves={name: list(values) for name, values in found.items()},
                   numbers=dict(explanation.numbers), progress=progress, note="")


def _class_matters(explanation: Explanation) -> bool:
    """Whether random classes can be compared at once: one cheap backward pass each, and another map each."""
    chosen = METHODS.get(explanation.method)
    return bool(chosen and chosen.live and "gradient" in chosen.needs)


def ranking(look: Look, heat: np.ndarray) -> torch.Tensor:
    """Flat positions of the picture's pixels, hottest first; ties by chance, to favour no corner."""
    inside = shown(look).flatten().nonzero()[:, 0].cpu().numpy()
    inside = np.random.default_rng(0).permutation(inside)
    hottest = np.argsort(-heat.flatten()[inside], kind="stable")
    return torch.from_numpy(inside[hottest]).to(look.x.device)


def area(values: list[float]) -> float:
    """The area under a curve over the shares 0 to 1, by trapezoids."""
    return float(np.trapezoid(values, dx=1 / (len(values) - 1)))


def sanity(look: Look, method: str, target: Target, params: dict[str, Any]) -> Iterator[Explanation]:
    """Adebayo et al. 2018: the same map on copies whose weights are drawn anew, head first, then all.

    The rank correlation with the real map says how much of it needs what the model has learned.
    """
    cannot = missing(frozenset({"redraw"}), "the check with random weights", look.model)
    if cannot:
        raise BadInput(cannot)
    *_, own = steps(look, method, target, params)
    maps: dict[str, np.ndarray] = {}
    correlations, numbers = [1.0], dict[str, float | str]()
    for number, (name, share) in enumerate(STAGES):
        other = Look(look.model.randomised(share, seed=number), look.frame, look.settings, canvas=look.canvas)
        other.prediction = look.prediction       # the question stays the one about the real answer
        redrawn = own
        for redrawn in steps(other, method, target, params):
            if not redrawn.done:
                yield _checked(own, maps, correlations, numbers, (number + redrawn.progress) / len(STAGES))
        maps[name] = redrawn.heat
        inside = look.canvas.inside
        correlations.append(rank_correlation(own.heat[inside], redrawn.heat[inside]))
        numbers[f"rank correlation, {name} random"] = correlations[-1]
        e = _checked(own, maps, correlations, numbers, (number + 1) / len(STAGES))
        if e.done:
            e.note = ("The map is empty: there is nothing to check." if own.empty
                      else _verdict(correlations[-1]))
        yield e


def _checked(own: Explanation, maps: dict[str, np.ndarray], correlations: list[float],
             numbers: dict[str, float | str], progress: float) -> Explanation:
    return replace(own, maps=dict(maps), curves={"rank correlation": list(correlations)},
                   numbers=dict(numbers), images={}, image=None, prediction=None, progress=progress, note="")


def _verdict(last: float) -> str:
    if last > SAME:
        return (f"Fails the check: random weights draw much the same map (rank correlation {last:.2f}), "
                "so it says little about what the model learned.")
    return (f"Passes the check: random weights draw another map (rank correlation {last:.2f}), "
            "so it depends on what the model learned.")


def _ranks(values: np.ndarray) -> np.ndarray:
    """Each value's place in the order, equal ones sharing the mean of theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[which]


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, of two maps; 0 when one of them is flat and has no order."""
    ranks = [_ranks(v.flatten()) for v in (a, b)]
    if any(r.std() == 0 for r in ranks):
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def evidence(look: Look, method: str, target: Target, params: dict[str, Any], n: int = 8,
             seed: int = 0) -> float | None:
    """The map's raw maximum over the median of its rivals' (see `rivals`); 1 is no evidence.

    None where there is nothing to compare with.
    """
    others = random_maxima(look, method, target, params, n, seed)
    if not others:
        return None
    *_, own = steps(look, method, target, params)
    return own.raw_max / max(float(np.median(others)), 1e-12)


def random_maxima(look: Look, method: str, target: Target, params: dict[str, Any], n: int = 8,
                  seed: int = 0) -> list[float]:
    """Raw maxima of the maps of the target's rivals."""
    found = []
    for rival in rivals(look, target, n, seed):
        *_, e = steps(look, method, rival, params)
        found.append(e.raw_max)
    return found


def rivals(look: Look, target: Target, n: int, seed: int) -> list[Target]:
    """The same question about n random classes or words, or about n random captions as long.

    A box's side or objectness is compared with that of other boxes of the picture: pixels with pixels.
    There are fewer, or none, where the picture or the model has no more.
    """
    draw = np.random.default_rng(seed)
    if target.part != "class":
        seen = (*look.prediction.boxes, *look.prediction.candidates)
        boxes = [replace(target, index=b.index, anchor=b.anchor) for b in seen if b.anchor != target.anchor]
        return [boxes[i] for i in draw.permutation(len(boxes))[:n]]
    spoken = {target.index, target.versus, *(target.words or ())}
    others = [i for i in look.model.labels if i not in spoken and (target.words is None or i > 3)]
    if not others:
        return []
    if target.words is not None and target.position is None:
        return [Target(words=tuple(draw.choice(others, len(target.words)).tolist())) for _ in range(n)]
    chosen = draw.choice(others, min(n, len(others)), replace=False).tolist()
    return [target.rival(int(index)) for index in chosen]


def energy_in_box(explanation: Explanation, box: Corners) -> float:
    """The share of the map's positive heat inside a box, given in frame pixels."""
    heat = np.maximum(explanation.heat, 0)
    total = float(heat.sum())
    return float(heat[_inside(explanation, box)].sum()) / total if total > 0 else 0.0


def pointing_game(explanation: Explanation, box: Corners) -> bool:
    """Whether the hottest pixel lies in a box, given in frame pixels (Zhang et al. 2018)."""
    if explanation.heat.max() <= 0:
        return False
    return bool(_inside(explanation, box).flat[int(explanation.heat.argmax())])


def in_box(explanation: Explanation, box: Corners) -> dict[str, float | str]:
    """Both measures and the share of the picture that the box covers, which is what chance would reach."""
    assert explanation.canvas is not None
    chance = _inside(explanation, box)[explanation.canvas.inside].mean()
    return {"energy in box": energy_in_box(explanation, box), "box over picture": float(chance),
            "hottest pixel in box": "yes" if pointing_game(explanation, box) else "no"}


def _inside(explanation: Explanation, box: Corners) -> np.ndarray:
    """The canvas pixels whose middles lie in a box of the frame."""
    if explanation.canvas is None:
        raise BadInput("this explanation has no canvas yet; take one that explain() or steps() gave")
    left, top, right, bottom = explanation.canvas.to_canvas(np.array([box], np.float64))[0]
    if not (right > left and bottom > top):
        raise BadInput(f"a box is left, top, right, bottom in frame pixels with some size, got {box}")
    rows, columns = (np.arange(n) + 0.5 for n in explanation.heat.shape)
    return ((rows >= top) & (rows <= bottom))[:, None] & ((columns >= left) & (columns <= right))[None]
