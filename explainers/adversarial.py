"""Attacks: the smallest change of pixels that makes the model say something else, and what it shows."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from explainers.base import Explanation, Look, method
from explainers.perturbation import box_of, overlap
from explainers.pixels import pixel_gradient, probability, shown
from models.base import Prediction, Target

LARGEST = 32                  # in 1/255: where the search for the smallest epsilon gives up
HALVINGS = 6
LEAST = "smallest epsilon that changes it, in 1/255"
CONTROLS = 4                  # random pictures that an attack is compared with
STEEP = 1e3                   # captum's attack ignores gradients below 1e-6, which sure models have

Attack = Callable[[float], Iterator[Tensor]]
"""An epsilon (in [0,1]) to better and better attacked canvases; the last one counts."""


@method("FGSM", group="attacks", needs=("gradient",),
        shows="One step of every pixel against the score, and which pixels that was felt through.",
        cannot="Not the strongest attack, and not why the picture was understood in the first place.",
        epsilon=(2, 1, 8), seed=(0, 0, 999))
def fgsm(look: Look, target: Target, epsilon: int, seed: int) -> Iterator[Explanation]:
    """Goodfellow et al. 2015, L-infinity; with a rival in the target, towards the rival."""
    yield from _attacked(look, target, _walk(look, target, 1, 1.0), epsilon, random_signs(look, seed))


@method("PGD", group="attacks", needs=("gradient",),
        shows="The strongest invisible change that many small steps find, and through which pixels.",
        cannot="Not why the picture was understood at first; another start may find another change.",
        epsilon=(2, 1, 8), steps=(10, 1, 40), seed=(0, 0, 999))
def pgd(look: Look, target: Target, epsilon: int, steps: int, seed: int) -> Iterator[Explanation]:
    """Madry et al. 2018, L-infinity, from the picture itself; with a rival, towards the rival."""
    yield from _attacked(look, target, _walk(look, target, steps, 2.5 / steps), epsilon,
                         random_signs(look, seed))


@method("Masked noise", group="attacks", needs=("gradient",),
        shows="What random noise does when it falls only on the pixels that the score is most sensitive to.",
        cannot="Not the strongest attack: the noise is chance, only its place is chosen.",
        share=(0.1, 0.01, 1.0), epsilon=(16, 1, 64), seed=(0, 0, 999))
def masked_noise(look: Look, target: Target, share: float, epsilon: int, seed: int) -> Iterator[Explanation]:
    """Noise where |gradient| is above a share of its maximum; the control is as much noise elsewhere."""
    strength = pixel_gradient(objective(look, target), look.x)[0].abs().amax(1, keepdim=True) * shown(look)
    chosen = strength > share * strength.max()
    noise = random_signs(look, seed)[0]

    def attack(size: float) -> Iterator[Tensor]:
        yield (look.x + size * noise * chosen).clamp(0, 1)

    inside = shown(look).bool()
    draw = torch.Generator().manual_seed(seed)
    controls = []
    for signs in random_signs(look, seed + 1):
        order = torch.rand(chosen.shape, generator=draw).to(look.x.device).masked_fill(~inside, -1)
        elsewhere = order.flatten().topk(int(chosen.sum())).indices
        spot = torch.zeros_like(order).flatten().index_fill(0, elsewhere, 1).view_as(order)
        controls.append(signs * spot)
    for e in _attacked(look, target, attack, epsilon, controls):
        e.numbers["share of pixels changed"] = float(chosen.sum() / inside.sum())
        yield e


def objective(look: Look, target: Target) -> Callable[[Tensor], Tensor]:
    """What an attack lowers: a class's lead over all others, with a rival all others' lead over the rival."""
    if look.model.info.task != "classify":
        return look.forward(target)
    index, sign = (target.index, 1) if target.versus is None else (target.versus, -1)

    def lead(x: Tensor) -> Tensor:
        features = look.model.encode(x)
        look.model.score(features, target)             # refuses a class that is not there
        logits = look.model.logits_of(features, target)
        others = logits.index_fill(1, torch.tensor([index], device=logits.device), -torch.inf).logsumexp(1)
        return sign * (logits[:, index] - others)

    return lead


def _walk(look: Look, target: Target, steps: int, stride: float) -> Attack:
    """Steps of `stride` times the attack's size, never further from the picture than that size."""
    step = stepper(look, target)

    def attack(size: float) -> Iterator[Tensor]:
        attacked = look.x
        for _ in range(steps):
            moved = step(attacked, stride * size)
            attacked = (look.x + (moved - look.x).clamp(-size, size)).clamp(0, 1)
            yield attacked

    return attack


def stepper(look: Look, target: Target) -> Callable[[Tensor, float], Tensor]:
    """One captum step against the objective: pixel bounds kept, padding left alone."""
    from captum.robust import FGSM  # captum takes half a second to import

    captum = FGSM(objective(look, target), lambda out, _: -STEEP * out, lower_bound=0.0, upper_bound=1.0)
    mask = shown(look)
    return lambda x, size: captum.perturb(x.detach().clone().requires_grad_(), size, target=None,
                                          mask=mask).detach()


def random_signs(look: Look, seed: int) -> list[Tensor]:
    """Pictures of -1 and 1, zero on padding: noise of the same size as an attack of epsilon 1."""
    draw = torch.Generator().manual_seed(seed)
    inside = shown(look)
    return [(torch.randint(0, 2, look.x.shape, generator=draw) * 2.0 - 1).to(look.x.device) * inside
            for _ in range(CONTROLS)]


def _attacked(look: Look, target: Target, attack: Attack, epsilon: int,
              controls: list[Tensor]) -> Iterator[Explanation]:
    """The attack, its random control, and then the search for the smallest epsilon that is enough."""
    size, enough = epsilon / 255, flips(look, target)
    gradient, _ = pixel_gradient(look.forward(target), look.x)
    attacked = look.x
    for attacked in attack(size):
        yield Explanation(_influence(attacked - look.x, gradient), image=_picture(attacked), progress=0.1,
                          prediction=None, note="The attack is under way.")
    noisy = [(look.x + size * signs).clamp(0, 1) for signs in controls]
    chance = probability(look, target)
    with torch.no_grad():
        before, after, *random = (float(chance(look.model.encode(x))[0]) for x in (look.x, attacked, *noisy))
    prediction = look.after(attacked)
    changed = enough(prediction)
    numbers: dict[str, float | str] = {
        "epsilon in 1/255": epsilon, "probability before": before, "probability after": after,
        "after random noise of the same size": float(np.mean(random)), "changed": "yes" if changed else "no",
        **_words(look, target, attacked)}
    e = Explanation(
        _influence(attacked - look.x, gradient), image=_picture(attacked), prediction=prediction,
        images={"perturbation x10": _picture(0.5 + 10 * (attacked - look.x)),
                "random noise": _picture(noisy[0])},
        numbers=numbers, progress=0.3, note="Now looking for the smallest change that is enough.")
    yield e
    low, high = (0.0, float(epsilon)) if changed else (float(epsilon), None)
    tries = HALVINGS if changed else HALVINGS + 1
    for turn in range(tries):
        middle = float(LARGEST) if high is None else (low + high) / 2
        if middle <= low:
            break
        for better in attack(middle / 255):
            attacked = better
            yield _again(e, 0.3 + 0.7 * turn / tries)
        if enough(look.after(attacked)):
            high = middle
        else:
            low = middle
            if high is None:
                break
    numbers[LEAST] = f"more than {low:g}" if high is None else round(high, 3)
    yield _again(e, 1.0, _verdict(numbers, high is not None))


def _again(e: Explanation, progress: float, note: str | None = None) -> Explanation:
    """The same explanation, further on."""
    return replace(e, heat=e.heat.copy(), progress=progress, note=e.note if note is None else note)


def _verdict(numbers: dict[str, float | str], found: bool) -> str:
    before, after = float(numbers["probability before"]), float(numbers["probability after"])
    chance = float(numbers["after random noise of the same size"])
    least = numbers[LEAST]
    small = f"A change of {least}/255 is enough." if found else f"It takes {least}/255 to change it."
    return f"From {before:.1%} to {after:.1%}; random noise of the same size leaves {chance:.1%}. {small}"


def _influence(change: Tensor, gradient: Tensor) -> np.ndarray:
    """|change x gradient|, summed over colours: through which pixels the score was moved."""
    return (change * gradient).abs().sum(1)[0].cpu().numpy()


def _picture(x: Tensor) -> np.ndarray:
    return x[0].clamp(0, 1).permute(1, 2, 0).cpu().numpy()


def flips(look: Look, target: Target) -> Callable[[Prediction], bool]:
    """Whether a prediction answers the target's question otherwise than this picture's own."""
    says = _says(look, target)
    now = says(look.prediction)
    return lambda prediction: says(prediction) != now


def _says(look: Look, target: Target) -> Callable[[Prediction], bool]:
    """The yes or no that is at stake: the class is first, the box is there, the word is said."""
    seen, task, wanted = look.prediction, look.model.info.task, target.index
    if target.versus is not None:
        wanted = target.versus
    if task == "classify":
        few = 1 if target.versus is not None or wanted == seen.classes[0].index else len(seen.classes)
        return lambda p: wanted in [c.index for c in p.classes[:few]]
    if task == "caption":
        if target.position is None:
            return lambda p: p.caption == seen.caption
        if wanted is None:
            wanted = (target.words or ())[target.position]
        return lambda p: wanted in [w.index for w in p.words]
    box = box_of(look, target)
    reported = box in seen.boxes or target.versus is not None
    kinds = {wanted} if target.versus is not None else {box.index, wanted}
    return lambda p: any(b.index in kinds and overlap(b.box, box.box) > 0.5
                         for b in (p.boxes if reported else (*p.boxes, *p.candidates)))


def _words(look: Look, target: Target, attacked: Tensor) -> dict[str, float | str]:
    """For a caption: by how much each word's log-probability changed."""
    if look.model.info.task != "caption" or not target.words:
        return {}
    with torch.no_grad():
        new = look.model.encode(attacked)
        found: dict[str, float | str] = {}
        for position, index in enumerate(target.words):
            word = Target(index=index, position=position, words=target.words)
            change = look.model.score(new, word) - look.model.score(look.features, word)
            found[f"change of log p, {position} {look.model.labels[index]}"] = float(change)
    return found
