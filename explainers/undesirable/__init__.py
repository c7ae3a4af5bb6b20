"""The pixels that keep a model from saying a class (Kang, Jung & Lee 2019), by gradient and without."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from dataclasses import replace as changed
from math import log

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from explainers.base import Explanation, Look, method
from explainers.perturbation import over_masks
from explainers.pixels import hidden, probability, shown
from explainers.whatif import confidence
from models.base import BadInput, Model, Target

GRID = 28
CELLS = 8                       # of the black box's masks, across and down
REPLACEMENTS = ("blur", "mean", "noise")
WEIGHTS = {"F-TC": (10.0, 1.0, 1.0), "F-NTC": (2.0, 1.0, 1.0)}
"""lambda 1, lambda 2 and mu: of those tried the best over all shares of the metric. With less price on a
pixel the mask takes everything away; with more it finds the worst hundredth and nothing else."""
BETA = 3
RATE = 0.1


@dataclass(frozen=True)
class Odds:
    """log p/(1-p) = z - rest: the class's own number, and the log-sum-exp of all others (or one rival's)."""

    z: Tensor
    rest: Tensor

    @property
    def total(self) -> Tensor:
        return self.z - self.rest


def odds_of(model: Model, target: Target) -> Callable[[Tensor], Odds]:
    """Pixels, Nx3xhxw, to the two parts of the log-odds of the target."""
    column = _class_of(target)

    def look(x: Tensor) -> Odds:
        numbers = model.logits_of(model.encode(x), target)
        if not 0 <= column < numbers.shape[1]:
            raise BadInput(f"class must be an index from 0 to {numbers.shape[1] - 1}, got {column}")
        if target.versus is not None:
            return Odds(numbers[:, column], numbers[:, target.versus])
        others = torch.cat([numbers[:, :column], numbers[:, column + 1:]], 1)
        return Odds(numbers[:, column], others.logsumexp(1))

    return look


def _class_of(target: Target) -> int:
    if target.index is None or target.part != "class":
        raise BadInput("undesirable pixels are those of a class or of a word; "
                       "say class:INDEX, box:N or word:N")
    return target.index


def _spread(grid: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(grid, size, mode="bilinear", align_corners=False)


def roughness(m: Tensor, beta: float = BETA) -> Tensor:
    """Total variation to the power beta, the mean over the grid."""
    down, across = m[..., 1:, :-1] - m[..., :-1, :-1], m[..., :-1, 1:] - m[..., :-1, :-1]
    return (down.square() + across.square() + 1e-12).pow(beta / 2).mean()


def objective(kind: str, m: Tensor, now: Odds, first: Odds, small: float, smooth: float,
              steady: float) -> Tensor:
    """F-TC raises the class and holds its rivals still; F-NTC lowers the rivals and holds the class still."""
    price = small * (1 - m).abs().mean() + smooth * roughness(m)
    if kind == "F-TC":
        return price - now.z.sum() + steady * (now.rest - first.rest).square().sum()
    return price + now.rest.sum() + steady * (now.z - first.z).square().sum()


def search(odds: Callable[[Tensor], Odds], x: Tensor, instead: Tensor, inside: Tensor, kind: str,
           iterations: int) -> Iterator[tuple[Tensor, Odds, Odds]]:
    """The mask m (1x1xhxw, 1 keeps a pixel) after each step, with the odds at the start and with it."""
    size = (x.shape[2], x.shape[3])
    grid = torch.ones(1, 1, GRID, GRID, device=x.device, requires_grad=True)
    optimiser = torch.optim.Adam([grid], lr=RATE)
    with torch.no_grad():
        first = odds(x)
    for _ in range(iterations):
        with torch.enable_grad():
            m = 1 - (1 - _spread(grid, size)) * inside
            now = odds(m * x + (1 - m) * instead)
            loss = objective(kind, grid, now, first, *WEIGHTS[kind])
            gradient, = torch.autograd.grad(loss, [grid])
        grid.grad = gradient
        optimiser.step()
        with torch.no_grad():
            grid.clamp_(0, 1)
            m = 1 - (1 - _spread(grid, size)) * inside
        yield m, first, Odds(now.z.detach(), now.rest.detach())


def _numbers(first: Odds, now: Odds, m: Tensor, inside: Tensor) -> dict[str, float | str]:
    return {"log-odds before": float(first.total), "log-odds after": float(now.total),
            "gain": float(now.total - first.total), "gain from the class": float(now.z - first.z),
            "gain from its rivals": float(first.rest - now.rest),
            "taken away %": 100 * float((1 - m).sum() / inside.sum())}


@method("Undesirable pixels", group="what if", needs=("gradient",),
        shows="Which pixels keep the model from saying this class: take them away and it says it more.",
        cannot="Not what speaks for the class, nor that nothing else stands in its way: one answer of many.",
        kind=("F-TC", "F-NTC"), replace=REPLACEMENTS, iterations=(60, 10, 300))
def undesirable(look: Look, target: Target, kind: str, replace: str,
                iterations: int) -> Iterator[Explanation]:
    """Kang, Jung & Lee 2019: the mask whose removal raises the class (F-TC) or lowers its rivals (F-NTC)."""
    odds, inside, x = odds_of(look.model, target), shown(look), look.x
    instead = hidden(look, replace)
    for step, (m, first, now) in enumerate(search(odds, x, instead, inside, kind, iterations), 1):
        last = step == iterations
        if last:
            with torch.no_grad():
                without = m * x + (1 - m) * instead
                now = odds(without)
        if last or step % 2 == 0:
            done = Explanation((1 - m)[0, 0].cpu().numpy(), numbers=_numbers(first, now, m, inside),
                               progress=step / iterations)
            if last:
                done.image = without[0].permute(1, 2, 0).cpu().numpy()
                done.prediction = look.after(without)
                done.numbers |= {"confidence before": confidence(look, target, x),
                                 "confidence after": confidence(look, target, without)}
                done.note = _sentence(first, now)
            yield done


def _sentence(first: Odds, now: Odds) -> str:
    own, rivals = float(now.z - first.z), float(first.rest - now.rest)
    if own + rivals < log(1.05):
        return "Hardly any pixel stands in its way: taking the marked ones away does not raise it."
    if own <= 0 or rivals <= 0:
        return f"The whole gain comes from {'weaker rivals' if own <= 0 else 'the class itself'}."
    return (f"{round(100 * own / (own + rivals))} % of the gain comes from the class itself, "
            "the rest from weaker rivals.")


@method("Undesirable pixels, black box", group="what if",
        shows="Which regions, when they happen to be visible, go with a lower probability; no gradients.",
        cannot="Nothing finer than a cell of its masks, and few masks make a blotchy map.",
        replace=REPLACEMENTS, masks=(400, 50, 4000), seed=(0, 0, 99))
def undesirable_black_box(look: Look, target: Target, replace: str, masks: int,
                          seed: int) -> Iterator[Explanation]:
    """RISE, the other way round: where being seen goes with a lower probability, a pixel is undesirable."""
    _class_of(target)
    before = confidence(look, target, look.x)
    for e in over_masks(look, probability(look, target), masks, CELLS, replace, seed):
        yield changed(e, heat=np.maximum(-e.heat, 0), numbers={**e.numbers, "confidence": before})
