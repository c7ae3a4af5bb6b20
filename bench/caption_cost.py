"""What explaining a caption costs, as ratios: all words' maps, the beam, one word's saliency; and memory."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
import torch

import models
from bench.table import Row, at_most, paired
from explainers import Look, Question, explain, parse, resolve
from explainers.words import word_maps
from serving import presets

if TYPE_CHECKING:
    from models.captioner.model import CaptionModel


def _frames() -> list[np.ndarray]:
    found = [path for name in presets.PRESETS if (path := presets.path(name))]
    return [picture for path in found
            if (picture := cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)) is not None]


def _resident() -> float:
    """Megabytes of this process; Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def rows(quick: bool) -> Iterator[Row]:
    """Ratios within one run; 500 captions for the memory unless quick."""
    model = cast("CaptionModel", models.load("efficientnetv2-lstm"))
    frames = _frames()
    frame, repeats = frames[0], 15 if quick else 101
    look = Look(model, frame)
    whole = resolve(Question(), look)
    count = len(look.prediction.words)

    def seen() -> None:
        Look(model, frame)

    def with_words() -> None:
        word_maps(Look(model, frame), whole)

    yield at_most(f"caption with Grad-CAM of all {count} words / caption",
                  paired(with_words, seen, repeats), 1.15)
    decoding = paired(lambda: model.sentences(look.features, 3), lambda: model.encode(look.x), repeats)
    yield at_most("beam-3 decoding / encoding", decoding, 0.5)
    yield from _saliency(model, frame, repeats)

    def many(times: int) -> None:
        for i in range(times):
            again = Look(model, frames[i % len(frames)])
            word_maps(again, resolve(Question(), again))

    if Path("/proc/self/statm").exists():
        times = 60 if quick else 500
        many(30)
        before = _resident()
        many(times)
        yield at_most(f"growth over {times} captions with all maps, MB", _resident() - before, 30)


def _saliency(model: CaptionModel, frame: np.ndarray, repeats: int) -> Iterator[Row]:
    """Through the bridge, against a tape over the same two functions, and over all of it in one."""
    from models.captioner import WEIGHTS, network
    from models.captioner.network import tf

    look = Look(model, frame)
    target = resolve(parse("word:1", "caption"), look)
    net = network.put_encoder(network.build_encoder(), network.read_arrays(WEIGHTS / "encoder.npz"))
    arrays = network.read_arrays(WEIGHTS / "decoder.npz")
    words = target.words or ()
    fed = tf.constant([network.START, words[0]])
    encode = tf.function(network.as_function(network.folded(net)))

    @tf.function
    def score(maps: tf.Tensor) -> tf.Tensor:
        w = {name: tf.constant(value) for name, value in arrays.items()}
        return network.teacher_forced(w, network.look_at(w, maps), fed)[0, 1, words[1]]

    def bare(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = score(encode(x))
        return tape.gradient(out, x)

    @tf.function
    def fused(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = score(net(x, training=False))
        return tape.gradient(out, x)

    x = tf.constant(look.x.permute(0, 2, 3, 1).cpu().numpy() * 255)
    ours = explain(model, frame, "saliency", target).heat
    theirs = np.abs(bare(x).numpy()[0]).max(2) * 255
    agree = float(np.abs(ours - theirs).max() / theirs.max())

    def through_torch() -> None:
        leaf = look.x.clone().requires_grad_()
        torch.autograd.grad(look.forward(target)(leaf).sum(), leaf)

    yield at_most("saliency of one word / bare GradientTape",
                  paired(through_torch, lambda: bare(x).numpy(), repeats), 1.1,
                  f"the two maps differ by at most {agree:.1e} of their maximum")
    yield Row("saliency of one word / forward and backward in one tf.function",
              paired(through_torch, lambda: fused(x).numpy(), repeats))
