"""What the decoder learns to read: the last map of an encoder, for every picture, computed once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from models.captioner.encoder import CHANNELS
from training.captioner.encoders import Student, Teacher, from_keras
from training.captioner.views import Pictures, tensor, view

SIDE = 224
OFFICIAL = {"b0": "B0", "b1": "B1", "b2": "B2", "b3": "B3", "s": "S"}
ToMaps = Callable[[Pictures], NDArray[np.float32]]
Figures = dict[str, dict[str, float]]


class Refused(Exception):
    """A sentence for the person at the command line."""


@dataclass(frozen=True)
class Encoder:
    """Pictures to maps (pictures, places, channels), scaled so that encoders taught by another read alike."""

    decoder_file: str
    raw: ToMaps
    scale: NDArray[np.float32] | float = 1.0
    shift: NDArray[np.float32] | float = 0.0
    student: Student | None = None               # what can learn from the captions, too

    @property
    def name(self) -> str:
        return self.decoder_file.removesuffix(".npz")

    def maps(self, images: Pictures) -> NDArray[np.float32]:
        return self.raw(images) * self.scale + self.shift

    def unscaled(self, decoder: Mapping[str, NDArray[np.floating]]) -> dict[str, NDArray[np.floating]]:
        """A decoder of scaled maps as one of the encoder's own: the scale goes into its first layer."""
        kernel, bias = (decoder[f"picture.{n}"].astype(np.float32) for n in ("kernel", "bias"))
        scale, shift = (np.broadcast_to(v, len(kernel)).astype(np.float32) for v in (self.scale, self.shift))
        return {**decoder, "picture.kernel": scale[:, None] * kernel, "picture.bias": bias + shift @ kernel}


def write_half(path: Path, arrays: Mapping[str, NDArray[np.floating]]) -> None:
    """All arrays as float16 in one compressed file, complete or not at all."""
    part = path.with_suffix(".part.npz")
    np.savez_compressed(
        part, allow_pickle=False, **{name: a.astype(np.float16) for name, a in arrays.items()}
    )
    part.replace(path)


def torch_maps(net: torch.nn.Module) -> ToMaps:
    @torch.no_grad()
    def maps(images: Pictures) -> NDArray[np.float32]:
        out: Tensor = net(tensor(images))
        return out.flatten(2).permute(0, 2, 1).numpy()

    return maps


def official(size: str, work: Path) -> ToMaps:
    """keras.applications' EfficientNetV2 with ImageNet weights; B0's are also written as an encoder file."""
    from models.captioner.bridge import build_encoder, keras

    architecture = f"EfficientNetV2{OFFICIAL[size]}"
    try:
        net = build_encoder(architecture, "imagenet")
    except Exception as error:
        raise Refused(
            f"{architecture}'s official weights could not be fetched ({error}); "
            "try again with a network, or use --encoder ours, lite0 or an encoder file"
        ) from error
    if size == "b0":
        write_half(work / "encoder.npz", {
            f"{layer.name}.{w.name}": np.asarray(w) for layer in net.layers for w in layer.weights
            if not isinstance(layer, keras.layers.Normalization)})

    def maps(images: Pictures) -> NDArray[np.float32]:
        out = np.asarray(net(images.astype(np.float32), training=False))
        return out.reshape(len(out), -1, out.shape[-1])

    return maps


def ours(
    images: Callable[[], Pictures], held_out: Callable[[], Pictures], work: Path, seed: int, shorter: float
) -> tuple[list[Encoder], Figures]:
    """Distils EfficientNetV2-B0 from Lite0, if that is not done yet; both encoders, the student first."""
    done, scales = work / "distillation.json", work / "to_teacher.npz"
    if not done.exists():
        from training.captioner.distill import distill

        arrays, scale, shift, figures = distill(images(), held_out(), work, seed=seed, shorter=shorter)
        write_half(work / "encoder.npz", arrays)
        np.savez(scales, scale=scale, shift=shift)
        done.write_text(json.dumps(figures, indent=1))
    with np.load(work / "encoder.npz") as file, np.load(scales) as to_teacher:
        student = from_keras(dict(file))
        scale, shift = to_teacher["scale"], to_teacher["shift"]
    own = Encoder("decoder.npz", torch_maps(student), scale, shift, student)
    return [own, Encoder("lite0_decoder.npz", torch_maps(Teacher()))], json.loads(done.read_text())


def encoders_of(
    kind: str,
    images: Callable[[], Pictures],
    held_out: Callable[[], Pictures],
    work: Path,
    seed: int,
    shorter: float,
) -> tuple[list[Encoder], Figures]:
    """The encoders that --encoder asks for, and the figures of the distillation if there was one."""
    if kind == "ours":
        return ours(images, held_out, work, seed, shorter)
    if kind == "lite0":
        return [Encoder("lite0_decoder.npz", torch_maps(Teacher()))], {}
    if kind in OFFICIAL:
        return [Encoder("decoder.npz", official(kind, work))], {}
    if not Path(kind).is_file():
        raise Refused(
            f"--encoder must be ours, lite0, {', '.join(OFFICIAL)} or an encoder file; there is no {kind}"
        )
    with np.load(kind) as file:
        arrays = dict(file)
    write_half(work / "encoder.npz", arrays)
    student = from_keras(arrays)
    return [Encoder("decoder.npz", torch_maps(student), student=student)], {}


def cached(path: Path, maps: ToMaps, images: Callable[[], Pictures], way: int = 0) -> NDArray[np.float16]:
    """The maps of one way of showing all pictures, as one float16 file that is written at the first call."""
    if not path.exists():
        shown, rng = images(), np.random.default_rng(way)
        bar = tqdm(range(0, len(shown), 32), desc=path.stem, mininterval=2)
        found = [maps(view(shown[i : i + 32], way, rng)).astype(np.float16) for i in bar]
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, np.concatenate(found))
        part.replace(path)
    return np.load(path, mmap_mode="r")


__all__ = ["CHANNELS", "OFFICIAL", "SIDE", "Encoder", "Refused", "cached", "encoders_of", "write_half"]
