"""Explanations from the gradient of the score with respect to the pixels."""
from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from explainers.base import Explanation, Look, method
from explainers.needs import SENTENCES
from explainers.pixels import at_once, hidden, pixel_gradient
from explainers.running import running
from models.base import BadInput, Model, Net, Target

Forward = Callable[[Tensor], Tensor]
warnings.filterwarnings("ignore", "Setting backward hooks on ReLU")      # captum takes them away again
PREVIEW = 5                  # steps between two looks at how integrated gradients are coming along
FEW = 10                     # noisy copies before which nothing is said about the rest
NOISY = "Not whether a pixel speaks for or against, and it is noisy on deep nets."


def per_pixel(attribution: Tensor) -> np.ndarray:
    """The strongest channel of |attribution|, 1x3xhxw to hxw."""
    return attribution.detach().abs().amax(1)[0].cpu().numpy()


def summed(attribution: Tensor) -> np.ndarray:
    """The signed sum of the three colours, 1x3xhxw to hxw."""
    return attribution.detach().sum(1)[0].cpu().numpy()


@method("Saliency", group="gradients", live=True, needs=("gradient",),
        shows="Which pixels would change the score most if they changed a little.",
        cannot=NOISY)
def saliency(look: Look, target: Target) -> Explanation:
    """Simonyan et al. 2014: |d score / d pixel|, the strongest of the three colours."""
    return Explanation(per_pixel(pixel_gradient(look.forward(target), look.x)[0]))


@method("Input x gradient", group="gradients", live=True, signed=True, needs=("gradient",),
        shows="Gradient times pixel value: a first guess at what each pixel adds to the score.",
        cannot="Dark pixels get next to nothing, whatever they mean, and it is noisy on deep nets.")
def input_x_gradient(look: Look, target: Target) -> Explanation:
    """Shrikumar et al. 2016: exact only where the model is linear."""
    return Explanation(summed(pixel_gradient(look.forward(target), look.x)[0] * look.x))


@method("SmoothGrad", group="gradients", needs=("gradient",),
        shows="Saliency with its noise averaged away: the mean gradient of many slightly noisy copies.",
        cannot="Not whether a pixel speaks for or against; with strong noise it shows what the noise does.",
        samples=(24, 2, 100), noise=(0.15, 0.01, 0.5), seed=(0, 0, 999))
def smooth_grad(look: Look, target: Target, samples: int, noise: float, seed: int) -> Iterator[Explanation]:
    """Smilkov et al. 2017: signed gradients are averaged, their size is shown.

    It ends before all samples when the rest would change nothing (running.py).
    """
    totals, counts, near = [torch.zeros_like(look.x), torch.zeros_like(look.x)], [0, 0], None
    for turn, (gradient, count) in enumerate(noisy(look.forward(target), look.x, samples, noise, seed)):
        totals[turn % 2] += gradient
        counts[turn % 2] += count
        done = sum(counts)
        if done >= FEW and counts[0] == counts[1]:
            near = running(totals, _strength, look.canvas, done, samples)
        enough = done == samples or (near is not None and near.settled)
        numbers: dict[str, float | str] = {"samples": done}
        so_far = f"{done} of {samples} noisy copies" + (": the rest would change nothing." if enough else ".")
        yield Explanation(per_pixel((totals[0] + totals[1]) / done), note="" if done == samples else so_far,
                          progress=1.0 if enough else done / samples,
                          numbers=numbers | ({"running error": near.error} if near else {}))
        if enough:
            return


def _strength(gradients: list[Tensor]) -> np.ndarray:
    return per_pixel(torch.stack(gradients).sum(0))


def smoothed(forward: Forward, x: Tensor, samples: int, noise: float,
             seed: int) -> Iterator[tuple[Tensor, int]]:
    """The mean gradient so far, and of how many noisy copies."""
    total, done = torch.zeros_like(x), 0
    for gradient, count in noisy(forward, x, samples, noise, seed):
        total, done = total + gradient, done + count
        yield total / done, done


def noisy(forward: Forward, x: Tensor, samples: int, noise: float,
          seed: int) -> Iterator[tuple[Tensor, int]]:
    """Sums of gradients, and of how many noisy copies each. `noise` is a share of the range [0,1]."""
    from captum.attr import NoiseTunnel, Saliency  # half a second to import

    tunnel = NoiseTunnel(Saliency(forward))
    for done in range(0, samples, at_once(x)):
        count = min(at_once(x), samples - done)
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            torch.manual_seed(seed * 1000 + done)
            mean = tunnel.attribute(x.clone().requires_grad_(), nt_samples=count, stdevs=noise, abs=False)
        yield count * mean.detach(), count


@method("Integrated gradients", group="gradients", signed=True, needs=("gradient",),
        shows="What each pixel adds to the score on the way from nothing to this picture; it adds up.",
        cannot="It depends on what counts as nothing: pixels that look like the baseline get no credit.",
        steps=(50, 5, 200), baseline=("black", "blur", "both"))
def integrated_gradients(look: Look, target: Target, steps: int, baseline: str) -> Iterator[Explanation]:
    """Sundararajan et al. 2017, by Gauss-Legendre quadrature; half of the points come first, as a preview."""
    yield from integrated(look, target, look.forward(target), steps, baseline)


def integrated(look: Look, target: Target, forward: Forward, steps: int,
               baseline: str) -> Iterator[Explanation]:
    """Integrated gradients of any forward pass; completeness is judged by the model's own score."""
    starts = [hidden(look, fill) for fill in (("black", "blur") if baseline == "both" else (baseline,))]
    means, total = [torch.zeros_like(look.x) for _ in starts], steps * len(starts)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    # Every other point first: half-way through, the sum is already an integral of half as many steps.
    order = [*range(0, steps, 2), *range(1, steps, 2)]
    used, done, due, heat = 0.0, 0, 0, np.zeros(look.canvas.size, np.float32)
    for first in range(0, steps, at_once(look.x)):
        chosen = order[first:first + at_once(look.x)]
        at, weight = (torch.tensor(v[chosen], dtype=look.x.dtype, device=look.x.device).view(-1, 1, 1, 1)
                      for v in ((nodes + 1) / 2, weights / 2))
        for start, mean in zip(starts, means, strict=True):
            gradient, _ = pixel_gradient(forward, start + at * (look.x - start))
            mean += (gradient * weight).sum(0, keepdim=True)
            done += len(chosen)
            if start is not starts[-1]:
                continue
            used += float(weight.sum())
            if done < total:
                if done >= due:                # a sum for every picture alone would cost as much as it shows
                    heat, due = summed(_travelled(look, starts, means) / used), done + PREVIEW
                yield Explanation(heat, progress=done / total, note=f"{done} of {total} steps.")
    result = _travelled(look, starts, means)
    yield _complete(Explanation(summed(result)), look, target, starts, float(result.sum()))


def _travelled(look: Look, starts: list[Tensor], means: list[Tensor]) -> Tensor:
    """The way from each baseline times the mean gradient on it, averaged over baselines."""
    ways = [(look.x - s) * m for s, m in zip(starts, means, strict=True)]
    return torch.stack(ways).mean(0)


def _complete(e: Explanation, look: Look, target: Target, starts: list[Tensor],
              explained: float) -> Explanation:
    """How far the map's sum is from the change of the score that it should add up to."""
    with torch.no_grad():
        score = float(look.model.score(look.features, target)[0])
        nothing = float(look.forward(target)(torch.cat(starts)).mean())
    off = abs(explained - (score - nothing)) / max(abs(score - nothing), 1e-6)
    e.numbers = {"score": score, "score of the baseline": nothing, "sum of the map": explained,
                 "completeness error": off}
    if off > 0.1:
        e.note = (f"The map adds up to {explained:.3g} where the score changed by {score - nothing:.3g}: "
                  f"{off:.0%} is not accounted for; take more steps.")
    return e


class _Scored(nn.Module):
    """A forward pass that captum can look into: the net is inside, the score comes out."""

    def __init__(self, net: nn.Module, forward: Forward):
        super().__init__()
        self.net, self._score = net, forward

    def forward(self, x: Tensor) -> Tensor:
        return self._score(x)


@method("Guided backpropagation", group="gradients", signed=True, needs=("gradient", "net", "relu"),
        shows="Sharp edges that reach the score through active units, negative signals dropped on the way.",
        cannot="It fails the sanity check: on a net with random weights it draws nearly the same edges.")
def guided_backpropagation(look: Look, target: Target) -> Explanation:
    """Springenberg et al. 2015, by captum; only where every activation is a ReLU."""
    from captum.attr import GuidedBackprop

    captum = GuidedBackprop(_Scored(torch_net(look.model), look.forward(target)))
    x = look.x.clone().requires_grad_()
    return Explanation(summed(captum.attribute(x)),
                       note="Fails the sanity check: read it as edges, not as reasons.")


def torch_net(model: Model) -> nn.Module:
    """The torch net behind the model, or a sentence for a model that has none to look into."""
    if not isinstance(model, Net):
        raise BadInput(SENTENCES["net"]("this method", model))
    return model.net
