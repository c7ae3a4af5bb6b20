"""What does it need: the hottest part of an explanation erased, beside the same area at random."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace as changed

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from explainers import cam, gradient, perturbation  # noqa: F401  (their maps are what is erased by)
from explainers.base import METHODS, TASKS, Explanation, Look, method, steps
from explainers.inpaint import FILLS, fill
from explainers.needs import lacks
from models.base import Target

DRAWS = 4                         # random regions that the control is the mean of
MAPS = tuple(name for group in ("maps", "gradients", "perturbation") for name, m in METHODS.items()
             if m.group == group and m.tasks == TASKS)
PLAIN = "occlusion"               # the map for models that the first of these cannot be drawn for


def confidence(look: Look, target: Target, x: Tensor) -> float:
    """What the page shows for the target on a canvas, without its rival: a probability."""
    with torch.no_grad():
        return float(look.model.probability(look.model.encode(x), changed(target, versus=None))[0])


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
    before = confidence(look, target, look.x)       # refuses what has none before a map is drawn
    usual = METHODS[MAPS[0]]
    instead = map == usual.name and lacks(usual, look.model) is not None
    for found in steps(look, PLAIN if instead else map, target, {}):
        heat = np.maximum(found.heat, 0)            # what speaks against the target is not needed for it
        if not found.done:
            yield Explanation(heat, progress=found.progress / 2)
    inside = look.canvas.inside
    mask = hottest(heat, inside, share / 100)
    numbers: dict[str, float | str] = {"confidence": before}
    if not mask.any():
        yield Explanation(heat, numbers=numbers, note="The map is empty: there is nothing to erase.")
        return
    without = erased(look, mask, fill)
    after = numbers["without the hottest"] = confidence(look, target, without)
    numbers["erased %"] = 100 * float(mask[inside].mean())
    draw = torch.Generator().manual_seed(seed)
    others, control = [], []
    for turn in range(DRAWS):
        yield Explanation(heat, numbers=dict(numbers), progress=0.5 + 0.5 * turn / DRAWS)
        others.append(erased(look, at_random(mask, inside, draw), fill))
        control.append(confidence(look, target, others[-1]))
    numbers["without a random part"] = float(np.mean(control))
    yield Explanation(heat, image=_picture(without), images={"random part": _picture(others[0])},
                      numbers=numbers, prediction=look.after(without),
                      note=_verdict(before, after, float(np.mean(control))) + (
                          f" The map is occlusion's: {look.model.info.title} cannot give {usual.title}."
                          if instead else ""))


def _verdict(before: float, after: float, control: float) -> str:
    lost, lost_at_random = before - after, before - control
    if lost > lost_at_random + 0.02:
        return "The model needs this part more than a random one."
    if lost < lost_at_random - 0.02:
        return "A random part was missed more: the map does not show what the model needs."
    return "Erasing this part changes about as much as erasing a random one."
