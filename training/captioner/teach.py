"""Teach a decoder to caption: first the references word by word, then CIDEr itself as the reward."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from training.captioner.learner import END, NEVER_SAID, PAD, START, Decoder
from training.captioner.metrics import Cider, score

# Nine captions in ten are not longer; the others are cut, without an end mark, to save padding.
LONGEST_TAUGHT = 16
# As captions are said by default: which pass is best said greedily is another one.
BEAMS = 3
Maps = Sequence[NDArray[np.float16]]


@dataclass
class Lesson:
    """Pictures' maps (one array for each way of showing them) and their captions as word indices."""

    maps: Maps
    captions: list[list[list[int]]]


@dataclass
class Exam:
    """Held-out maps, and the references as text."""

    maps: NDArray[np.float16]
    references: list[list[str]]
    words: list[str]


def as_text(indices: Sequence[int], words: Sequence[str]) -> str:
    """Words up to the end mark, joined by blanks."""
    said = []
    for index in indices:
        if index in (END, PAD):
            break
        said.append(words[index])
    return " ".join(said)


def some(maps: NDArray[np.float16], rows: NDArray[np.integer] | slice) -> Tensor:
    return torch.from_numpy(maps[rows].astype(np.float32))


def examine(decoder: Decoder, exam: Exam, width: int = 1) -> tuple[dict[str, float], list[str]]:
    """The five figures and the captions, said greedily or with beams."""
    decoder.eval()
    said: list[str] = []
    for i in range(0, len(exam.maps), 100):
        maps = some(exam.maps, slice(i, i + 100))
        rows = decoder.beam(maps, width) if width > 1 else decoder.speak(maps)[:, 0].tolist()
        said += [as_text(row, exam.words) for row in rows]
    return score(said, exam.references), said


def table_of(captions: list[list[list[int]]], rng: np.random.Generator, each: int = 5) -> Tensor:
    """(pictures, each, words): START, the caption, END, then PAD; too few captions repeat."""
    table = torch.full((len(captions), each, LONGEST_TAUGHT + 2), PAD)
    for i, own in enumerate(captions):
        picked = own if len(own) == each else [own[j] for j in rng.integers(len(own), size=each)]
        for j, caption in enumerate(picked):
            row = [START, *caption[:LONGEST_TAUGHT]] + [END] * (len(caption) <= LONGEST_TAUGHT)
            table[i, j, : len(row)] = torch.tensor(row)
    return table


class Progress:
    """Weights, optimiser, best score and random state of one phase, on disk after every epoch.

    `mean` runs behind the weights: it is what is examined and kept, for it says better than any one step.
    """

    def __init__(self, path: Path, decoder: Decoder, optimiser: torch.optim.Optimizer, seed: int) -> None:
        self.path, self.decoder, self.optimiser = path, decoder, optimiser
        self.rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        self.epoch, self.best, self.stale, self.seconds = 0, -1.0, 0, 0.0
        self.mean = copy.deepcopy(decoder).eval().requires_grad_(False)
        self.best_weights = {k: v.clone() for k, v in decoder.state_dict().items()}
        self.log: list[dict[str, Any]] = []
        if path.exists():
            saved = torch.load(path, weights_only=False)
            decoder.load_state_dict(saved["weights"])
            self.mean.load_state_dict(saved["mean"])
            optimiser.load_state_dict(saved["optimiser"])
            self.rng.bit_generator.state = saved["rng"]
            torch.set_rng_state(saved["torch_rng"])
            self.epoch, self.best, self.stale = saved["epoch"], saved["best"], saved["stale"]
            self.best_weights, self.log, self.seconds = saved["best_weights"], saved["log"], saved["seconds"]

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """The mean takes a step towards the weights: a long one at first, then a two-hundredth."""
        keep = min(0.995, (1 + step) / (10 + step))
        for mean, now in zip(self.mean.parameters(), self.decoder.parameters(), strict=True):
            mean.lerp_(now, 1 - keep)

    def close_epoch(self, loss: float, cider: float, seconds: float) -> None:
        self.epoch += 1
        self.seconds += seconds
        self.log.append({"epoch": self.epoch, "loss": round(loss, 4), "CIDEr": round(cider, 4)})
        self.stale += 1
        if cider > self.best:
            self.best, self.stale = cider, 0
            self.best_weights = {k: v.clone() for k, v in self.mean.state_dict().items()}
        part = self.path.with_suffix(".part")
        torch.save(
            {
                "weights": self.decoder.state_dict(),
                "mean": self.mean.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "rng": self.rng.bit_generator.state,
                "torch_rng": torch.get_rng_state(),
                "epoch": self.epoch,
                "best": self.best,
                "stale": self.stale,
                "best_weights": self.best_weights,
                "log": self.log,
                "seconds": self.seconds,
            },
            part,
        )
        os.replace(part, self.path)


def imitation_loss(decoder: Decoder, maps: Tensor, captions: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of the references, label-smoothed over the words that can be said."""
    captions = captions[:, :, : int((captions != PAD).sum(2).max())]
    wanted = captions[:, :, 1:]
    counted = ~torch.isin(wanted, torch.tensor(NEVER_SAID))
    logp = decoder(maps, captions[:, :, :-1], counted)
    right = logp.gather(1, wanted[counted][:, None]).mean()
    can_be_said = torch.tensor([w for w in range(logp.shape[1]) if w not in NEVER_SAID])
    return -(1 - smoothing) * right - smoothing * logp[:, can_be_said].mean()


def reward_loss(
    decoder: Decoder, maps: Tensor, rows: NDArray[np.integer], cider: Cider, words: list[str], samples: int
) -> tuple[Tensor, float]:
    """Self-critical sequence training (Rennie et al. 2017); each sample's baseline is the mean of the others.

    The end mark counts as a word: without it captions learn to stop in the middle of a phrase.
    """
    decoder.eval()
    said = decoder.speak(maps, samples, sample=True)
    text = [[as_text(s, words) + " <end>" * (END in s) for s in own] for own in said.tolist()]
    reward = torch.tensor([[cider.one(int(p), s) for s in own] for p, own in zip(rows, text, strict=True)])
    better = reward - (reward.sum(1, keepdim=True) - reward) / (samples - 1)
    decoder.train()
    fed = torch.cat([torch.full_like(said[:, :, :1], START), said[:, :, :-1]], 2)
    counted = said != PAD
    logp = decoder(maps, fed, counted).gather(1, said[counted][:, None])[:, 0]
    return -(better[:, :, None].expand(said.shape)[counted] * logp).mean(), float(reward.mean())


def groups_of(decoder: Decoder, rate: float, read_rate: float) -> list[dict[str, Any]]:
    """The decoder's weights at one rate, its reader's each at a rate relative to its own size."""
    groups: list[dict[str, Any]] = [{"params": [], "rate": rate}]
    for name, weight in decoder.named_parameters():
        if not name.startswith("map_reader."):
            groups[0]["params"].append(weight)
        elif weight.requires_grad:
            size = max(float(weight.detach().pow(2).mean().sqrt()), 0.03)
            groups.append({"params": [weight], "rate": read_rate * size, "weight_decay": 0})
    return groups


def teach(
    decoder: Decoder,
    lesson: Lesson,
    exam: Exam,
    checkpoint: Path,
    *,
    epochs: int,
    rate: float,
    read_rate: float = 0.0,
    reward: bool = False,
    batch: int = 40,
    smoothing: float = 0.1,
    patience: int = 4,
    seed: int = 0,
    quiet: bool = False,
) -> Progress:
    """One phase, cosine schedule, resumed from its checkpoint; ends early when dev CIDEr no longer rises.

    Leaves the weights that were best on dev in the decoder.
    """
    optimiser = torch.optim.AdamW(groups_of(decoder, rate, read_rate), lr=rate, weight_decay=1e-4)
    progress = Progress(checkpoint, decoder, optimiser, seed)
    captions = table_of(lesson.captions, np.random.default_rng(seed))
    cider = None
    if reward:
        cider = Cider([[f"{as_text(c, exam.words)} <end>" for c in own] for own in lesson.captions])
        if progress.epoch == 0:
            progress.best = examine(decoder, exam, BEAMS)[0]["CIDEr"]
    pictures = len(lesson.captions)
    starts = range(0, max(1, pictures - batch + 1), batch)
    while progress.epoch < epochs and progress.stale < patience:
        order, losses, began = progress.rng.permutation(pictures), [], time.time()
        decoder.train()
        name = f"{checkpoint.stem} {progress.epoch + 1}/{epochs}"
        bar = tqdm(starts, desc=name, disable=quiet, mininterval=5)
        for n, i in enumerate(bar):
            step = progress.epoch * len(starts) + n
            warm = min(1, (step + 1) / min(100, len(starts)))
            for group in optimiser.param_groups:
                fall = 0.51 + 0.5 * math.cos(math.pi * step / (epochs * len(starts)))
                group["lr"] = group["rate"] * warm * fall
            rows = order[i : i + batch]
            maps = some(lesson.maps[int(progress.rng.integers(len(lesson.maps)))], rows)
            if cider:
                loss, shown = reward_loss(decoder, maps, rows, cider, exam.words, 5)
            else:
                loss = imitation_loss(decoder, maps, captions[rows], smoothing)
                shown = float(loss.detach())
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
            optimiser.step()
            progress.follow(step)
            losses.append(shown)
            bar.set_postfix_str(f"{np.mean(losses[-50:]):.3f}", refresh=False)
        figures, said = examine(progress.mean, exam, BEAMS)
        progress.close_epoch(float(np.mean(losses)), figures["CIDEr"], time.time() - began)
        if not quiet:
            tqdm.write(f"{name} {progress.log[-1]} BLEU-4 {figures['BLEU-4']:.3f}, for example {said[0]!r}")
    decoder.load_state_dict(progress.best_weights)
    return progress
