"""Make an EfficientNetV2-B0 encoder that sees what EfficientNet-Lite0 sees, from photographs without labels.

`front` teaches the stages up to stride 8, which have no like in the teacher, by putting the teacher's frozen
rest behind them. `inherit` copies the rest in closed form (inherit.py). `rest` then trains what was copied,
each stage against the teacher's own, at the size that is used. Every phase goes on where it was stopped.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.captioner.encoder import CHANNELS, Same
from training.captioner.encoders import Arrays, Student, Teacher, to_keras
from training.captioner.inherit import inherit
from training.captioner.views import FRONT, Pictures, crops, draw, keep

# The student's streams that live in the teacher's own channels, and the teacher's blocks they answer to.
SHARED = {"block4c": 7, "block5e": 10, "block6f": 14}


@dataclass(frozen=True)
class Phase:
    """Which blocks learn, how long, how many views a step; the rate is relative to each weight's own size."""

    name: str
    first: str
    minutes: float
    batch: int
    rate: float


PHASES = (
    Phase("front", "block1a", 80, 64, 1e-2),
    Phase("rest", "block4a", 68, 32, 4e-3),
)
FRONT_SIDE = 128
VIEWS = 4                     # of each picture in `rest`
# How much of a stage's gradient reaches the stage before it, which has a teacher of its own.
THROUGH = 0.25

SMALLEST = 0.03               # no weight learns as slowly as if it were smaller
# How many pictures, of which side, `inherit` looks at.
INHERIT = (2800, 224)


def missing(mine: Tensor, wanted: Tensor) -> Tensor:
    """Squared error as a share of each channel's variance."""
    return ((mine - wanted) ** 2 / wanted.var((0, 2, 3), keepdim=True).clamp_min(1e-6)).mean()


def disagreement(teacher: Teacher, mine: Tensor, wanted: Tensor) -> Tensor:
    """KL from the teacher's 1000 probabilities to those that its classifier reads from my map."""
    said, right = (F.log_softmax(teacher.classify(m.mean((2, 3))), 1) for m in (mine, wanted))
    return F.kl_div(said, right, log_target=True, reduction="batchmean")


class Pair(nn.Module):
    """The student, the way from its block3b to the teacher's block 4, and from map to map."""

    def __init__(self) -> None:
        super().__init__()
        self.student = Student()
        self.middle, self.back = Same(32, 24, 1, bias=True), Same(48, 40, 1, bias=True)
        self.scale, self.shift = nn.Parameter(torch.ones(CHANNELS)), nn.Parameter(torch.zeros(CHANNELS))
        self.to(memory_format=torch.channels_last)

    def as_teacher(self, maps: Tensor) -> Tensor:
        return maps * self.scale[:, None, None] + self.shift[:, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return self.as_teacher(self.student(x))


def front_losses(pair: Pair, teacher: Teacher, x: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        wanted = teacher.streams(x)
        wanted_map = teacher.top(wanted[15])
    streams = pair.student.streams(pair.student.stem(x), last="block3b")
    seen = pair.back(streams["block3b"])
    rest = teacher.streams(seen, 5)
    answer = teacher.top(rest[15])
    return {
        "stride4": 0.3 * missing(pair.middle(streams["block2b"]), wanted[2]),
        "stride8": missing(seen, wanted[4]),
        "stride16": missing(rest[7], wanted[7]),
        "map": 0.5 * missing(answer, wanted_map),
        "kl": 0.3 * disagreement(teacher, answer, wanted_map),
    }


def rest_losses(pair: Pair, teacher: Teacher, view: dict[str, Tensor]) -> dict[str, Tensor]:
    student, wanted = pair.student, teacher.top(view["15"])
    x, losses = view[FRONT], {}
    for last, i in SHARED.items():
        first = f"{last[:6]}a"
        x = student.streams(x * THROUGH + x.detach() * (1 - THROUGH), first, last)[last]
        losses[last] = missing(x[:, : view[str(i)].shape[1]], view[str(i)])
    losses["block6f"] = 0.5 * losses["block6f"]
    mine = pair.as_teacher(student.top(student.streams(x, "block6g")["block6h"]))
    pooled, wanted_pooled = mine.mean((2, 3)), wanted.mean((2, 3))
    losses["map"] = missing(mine, wanted)
    losses["pooled"] = 0.5 * F.mse_loss(pooled, wanted_pooled) / wanted_pooled.var(0).mean()
    losses["kl"] = 0.5 * disagreement(teacher, mine, wanted)
    return losses


def train(
    pair: Pair,
    losses_of: Callable[[np.random.Generator], dict[str, Tensor]],
    phase: Phase,
    folder: Path,
    seed: int,
) -> Pair:
    """One phase; returns the running mean of its weights, which is better than the last ones."""
    first = phase.first == "block1a"
    resting = [] if first else ["stem_conv", "stem_bn", *pair.student.before(phase.first)]
    learning = [
        p for name, p in pair.named_parameters() if name.split(".")[min(1, name.count("."))] not in resting
    ]
    # Inherited weights differ a hundredfold in size: one step size for all would wreck the small ones.
    sizes = [max(float(p.detach().pow(2).mean().sqrt()), SMALLEST) for p in learning]
    optimiser = torch.optim.AdamW(
        [{"params": [p], "size": s} for p, s in zip(learning, sizes, strict=True)],
        betas=(0.9, 0.99),
        weight_decay=0,
    )
    mean, step, spent, began = copy.deepcopy(pair).eval().requires_grad_(False), 0, 0.0, time.time()
    rng = np.random.default_rng(seed)
    path = folder / f"{phase.name}.pt"
    if path.exists():
        saved: dict[str, Any] = torch.load(path, weights_only=False)
        pair.load_state_dict(saved["pair"])
        mean.load_state_dict(saved["mean"])
        optimiser.load_state_dict(saved["optimiser"])
        rng.bit_generator.state = saved["rng"]
        step, spent = saved["step"], saved["spent"]
    def save(seconds: float) -> None:
        state = {
            "pair": pair.state_dict(),
            "mean": mean.state_dict(),
            "optimiser": optimiser.state_dict(),
            "rng": rng.bit_generator.state,
            "step": step,
            "spent": seconds,
        }
        torch.save(state, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)

    running: list[list[float]] = []
    while (part := (now := spent + time.time() - began) / (60 * phase.minutes)) < 1:
        for group in optimiser.param_groups:
            warm = min(1, (step + 1) / 60)
            group["lr"] = group["size"] * phase.rate * warm * (0.501 + 0.5 * math.cos(math.pi * part))
        pair.train()
        for name in resting:
            pair.student.get_submodule(name).eval()
        losses = losses_of(rng)
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(learning, 2.0)
        optimiser.step()
        step += 1
        keep = min(0.998, (1 + step) / (20 + step))
        for m, p in zip(mean.state_dict().values(), pair.state_dict().values(), strict=True):
            m.lerp_(p, 1 - keep) if m.dtype.is_floating_point else m.copy_(p)
        running.append([float(v.detach()) for v in losses.values()])
        if step % 25 == 0:
            shown = " ".join(f"{n} {v:.3f}" for n, v in zip(losses, np.mean(running, 0), strict=True))
            print(f"{phase.name} {part:4.0%} step {step}: {shown}", flush=True)
            running = []
        if step % 100 == 0:
            save(now)
    save(60 * phase.minutes)
    return mean


@torch.no_grad()
def compare(pair: Pair, teacher: Teacher, images: Pictures) -> dict[str, float]:
    """On whole held-out pictures: same answer as the teacher, KL, share of the map's variance missing."""
    pair.eval()
    same, kl, lost = [], [], []
    for i in range(0, len(images), 50):
        x = torch.from_numpy(images[i : i + 50]).permute(0, 3, 1, 2).float() / 255
        mine, wanted = pair(x), teacher(x)
        said, right = (teacher.classify(m.mean((2, 3))).argmax(1) for m in (mine, wanted))
        same.append(float((said == right).float().mean()))
        kl.append(float(disagreement(teacher, mine, wanted)))
        lost.append(float(missing(mine, wanted)))
    return {"same": float(np.mean(same)), "kl": float(np.mean(kl)), "missing": float(np.mean(lost))}


def distill(
    images: Pictures,
    held_out: Pictures,
    folder: Path,
    *,
    seed: int = 0,
    shorter: float = 1.0,
) -> tuple[Arrays, NDArray[np.float32], NDArray[np.float32], dict[str, dict[str, float]]]:
    """All phases; weights by Keras' names, scale and shift to the teacher's map, figures after each phase.

    `shorter` scales every phase's minutes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    teacher, new = Teacher(), Pair()
    front, rest = (replace(phase, minutes=phase.minutes * shorter) for phase in PHASES)

    def on_pictures(rng: np.random.Generator) -> dict[str, Tensor]:
        return front_losses(new, teacher, crops(images, front.batch, FRONT_SIDE, 0.35, 0.3, rng))

    heir = train(new, on_pictures, front, folder, seed).requires_grad_(True)
    path = folder / "inherited.pt"
    if path.exists():
        heir.load_state_dict(torch.load(path, weights_only=True))
    else:
        rng = np.random.default_rng(seed)
        count, side = INHERIT
        pictures = torch.cat([crops(images, 4, side, 0.35, 0, rng) for _ in range(count // 4)])
        heir.scale.data.copy_(inherit(heir.student, heir.back, teacher, pictures))
        torch.save(heir.state_dict(), path)
    figures = {"inherit": compare(heir, teacher, held_out)}
    print(figures, flush=True)
    views = keep(heir.student.eval(), teacher, images, folder / "views", VIEWS, seed)

    def on_views(rng: np.random.Generator) -> dict[str, Tensor]:
        return rest_losses(heir, teacher, draw(views, rest.batch, rng))

    pair = train(heir, on_views, rest, folder, seed)
    figures["rest"] = compare(pair, teacher, held_out)
    print(figures, flush=True)
    scale, shift = (p.detach().numpy() for p in (pair.scale, pair.shift))
    return to_keras(pair.student.eval()), scale, shift, figures
