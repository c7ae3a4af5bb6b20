"""What does it need: the hottest part of an explanation erased, beside the same area at random."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace as changed
from math import exp

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from explainers import cam, gradient  # noqa: F401  (their maps are what is erased by)
from explainers.base import METHODS, TASKS, Explanation, Look, method, steps
from explainers.inpaint import FILLS, fill
from models.base import BadInput, Target

DRAWS = 4                         # random regions that the control is the mean of
MAPS = tuple(name for name, m in METHODS.items() if m.group in ("maps", "gradients") and m.tasks == TASKS)


def confidence(look: Look, target: Target, x: Tensor) -> float:
    """What the page shows for the target on a canvas: a probability; a whole caption has its words' mean."""
    model, plain = look.model, changed(target, versus=None)
    with torch.no_grad():
        features = model.encode(x)
        if model.info.task == "classify" and target.index is not None:
            return float(model.logits_of(features, plain).softmax(1)[0, target.index])
        if model.info.task == "caption":
            score = float(model.score(features, plain))
            return exp(score / (len(target.words or ()) if target.position is None else 1))
        return _box_confidence(look, plain, float(model.score(features, plain)))


def _box_confidence(look: Look, target: Target, score: float) -> float:
    """A detector's score is its confidence's logarithm or its logit: whichever fits the box it found."""
    if target.part not in ("class", "objectness"):
        raise BadInput(f"a box's {target.part} side has no confidence; ask about its class")
    logistic = 1 / (1 + exp(-max(-50.0, min(50.0, score))))
    if score > 0:
        return logistic
    seen = look.prediction
    box = next((b for b in (*seen.boxes, *seen.candidates)
                if b.anchor == target.anchor and b.index == target.index), None)
    if box is None or target.part != "class":
        return exp(score) if target.part == "objectness" else logistic
    with torch.no_grad():
        first = float(look.model.score(look.features, target))
    fits_log = abs(exp(min(first, 0.0)) - box.confidence) <= abs(1 / (1 + exp(-first)) - box.confidence)
    return exp(score) if fits_log else logistic


def hottest(heat: np.ndarray, inside: tuple[slice, slice], share: float) -> np.ndarray:
    """The `share` of the picture with the most heat, as a canvas mask; never a pixel without any."""
    shown = heat[inside]
    count = max(1, round(share * shown.size))
    order = np.argsort(-shown, axis=None, kind="stable")[:count]
    chosen = np.zeros(shown.size, bool)
    chosen[order] = shown.ravel()[order] > 0
    mask = np.zeros(heat.shape, bool)
    mask[inside] = chosen.reshape(shown.shape)
    return mask


def at_random(like: np.ndarray, inside: tuple[slice, slice], draw: torch.Generator) -> np.ndarray:
    """Random regions, a few cells large, of exactly the same area."""
    shown = like[inside]
    field = F.interpolate(torch.rand(1, 1, 8, 8, generator=draw), shown.shape, mode="bicubic",
                          align_corners=False)[0, 0].numpy()
    order = np.argsort(-field, axis=None)[: int(like.sum())]
    chosen = np.zeros(shown.size, bool)
    chosen[order] = True
    mask = np.zeros(like.shape, bool)
    mask[inside] = chosen.reshape(shown.shape)
    return mask


def erased(look: Look, mask: np.ndarray, name: str) -> Tensor:
    """The canvas with the masked pixels filled; padding stays padding."""
    rows, columns = look.canvas.inside
    shown = look.x[0, :, rows, columns].permute(1, 2, 0).cpu().numpy()
    picture = np.rint(shown * 255).astype(np.uint8)
    filled = fill(picture, mask[rows, columns], name).astype(np.float32) / 255
    kept = np.where(mask[rows, columns][..., None], filled, shown)
    out = look.x.clone()
    out[0, :, rows, columns] = torch.from_numpy(kept).permute(2, 0, 1).to(out)
    return out


def _picture(x: Tensor) -> np.ndarray:
    return x[0].permute(1, 2, 0).cpu().numpy()


@method("What does it need?", group="what if",
        shows="How far the confidence falls when a map's hottest part is erased, and a random part.",
        cannot="Not whether something else would do as well; and what fills the hole is seen too.",
        map=MAPS, share=(10, 1, 50), fill=tuple(FILLS), seed=(0, 0, 99))
def needs(look: Look, target: Target, map: str, share: int, fill: str, seed: int) -> Iterator[Explanation]:
    """Erase the hottest `share` per cent of a map; the control is the mean of a few random regions."""
    for found in steps(look, map, target, {}):
        if not found.done:
            yield Explanation(found.heat, progress=found.progress / 2)
    inside = look.canvas.inside
    mask = hottest(found.heat, inside, share / 100)
    before = confidence(look, target, look.x)
    numbers: dict[str, float | str] = {"confidence": before}
    if not mask.any():
        yield Explanation(found.heat, numbers=numbers, note="The map is empty: there is nothing to erase.")
        return
    without = erased(look, mask, fill)
    after = numbers["without the hottest"] = confidence(look, target, without)
    numbers["erased %"] = 100 * float(mask[inside].mean())
    draw = torch.Generator().manual_seed(seed)
    others, control = [], []
    for turn in range(DRAWS):
        yield Explanation(found.heat, numbers=dict(numbers), progress=0.5 + 0.5 * turn / DRAWS)
        others.append(erased(look, at_random(mask, inside, draw), fill))
        control.append(confidence(look, target, others[-1]))
    numbers["without a random part"] = float(np.mean(control))
    yield Explanation(found.heat, image=_picture(without), images={"random part": _picture(others[0])},
                      numbers=numbers, prediction=look.after(without),
                      note=_verdict(before, after, float(np.mean(control))))


def _verdict(before: float, after: float, control: float) -> str:
    lost, lost_at_random = before - after, before - control
    if lost > lost_at_random + 0.02:
        return "The model needs this part more than a random one."
    if lost < lost_at_random - 0.02:
        return "A random part was missed more: the map does not show what the model needs."
    return "Erasing this part changes about as much as erasing a random one."
