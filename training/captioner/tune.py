"""Let an encoder's last stage learn from the captions, together with the decoder that reads its map."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.captioner.encoder import CHANNELS
from training.captioner import maps, teach
from training.captioner.encoders import Student, to_keras
from training.captioner.learner import Decoder
from training.captioner.views import Pictures, tensor

FIRST, BEFORE = "block6a", "block5e"


class LastStage(nn.Module):
    """From what the last stage reads, (pictures, height, width, channels), to what the decoder reads.

    The norms keep their statistics: a batch of sixteen pictures would have others.
    """

    def __init__(self, encoder: maps.Encoder) -> None:
        super().__init__()
        assert encoder.student is not None
        self.student = copy.deepcopy(encoder.student)
        for name, weight in self.student.named_parameters():
            weight.requires_grad_(name.startswith((FIRST[:6], "top")))
        self.scale, self.shift = (
            nn.Parameter(torch.from_numpy(np.broadcast_to(v, CHANNELS).astype(np.float32).copy()))
            for v in (encoder.scale, encoder.shift)
        )
        self.eval()

    def train(self, mode: bool = True) -> LastStage:
        return super().train(False)

    def forward(self, before: Tensor) -> Tensor:
        x = self.student.streams(before.permute(0, 3, 1, 2), FIRST)["block6h"]
        return self.student.top(x).flatten(2).permute(0, 2, 1) * self.scale + self.shift


def before_last(student: Student) -> maps.ToMaps:
    @torch.no_grad()
    def run(images: Pictures) -> NDArray[np.float32]:
        x = student.streams(student.stem(tensor(images)), last=BEFORE)[BEFORE]
        return x.permute(0, 2, 3, 1).numpy()

    return run


def tune(
    encoder: maps.Encoder,
    decoder: Decoder,
    shown: Callable[[str], Pictures],
    lesson: teach.Lesson,
    exam: teach.Exam,
    work: Path,
    *,
    views: int,
    epochs: int,
    rate: float,
    read_rate: float,
    seed: int,
    batch: int,
) -> tuple[maps.Encoder, teach.Progress]:
    """The encoder with a last stage that has learned from the captions, the decoder along with it."""
    assert encoder.student is not None
    read = before_last(encoder.student)
    train = partial(shown, "train")
    ways = [maps.cached(work / f"train_before_{i}.npy", read, train, i) for i in range(views)]
    dev = maps.cached(work / "dev_before.npy", read, partial(shown, "dev"))
    stage = LastStage(encoder)
    decoder.map_reader = stage
    progress = teach.teach(
        decoder, teach.Lesson(ways, lesson.captions), teach.Exam(dev, exam.references, exam.words),
        work / "tune.pt", epochs=epochs, rate=rate, read_rate=read_rate, seed=seed, batch=batch,
    )  # fmt: skip
    decoder.map_reader = nn.Identity()
    maps.write_half(work / "encoder_tuned.npz", to_keras(stage.student))
    scale, shift = (v.detach().numpy() for v in (stage.scale, stage.shift))
    raw = maps.torch_maps(stage.student)
    return replace(encoder, raw=raw, scale=scale, shift=shift, student=stage.student), progress
