"""The decoder word by word in ONNX Runtime.

A word is a few small products, where torch's way of calling takes most of the time: a caption is said in half
of it, and the gradients of all its words are there in a third. Where a gradient at the map itself is wanted,
and until it is compiled, the decoder does it.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from models import compiled
from models.base import Features
from models.captioner.decoder import END, START, Decoder, Memory, Picture
from models.captioner.search import IMPOSSIBLE

MEMORY = Memory._fields
LOOKED = ("values", "keys")


class Ways(NamedTuple):
    """One word there, and one word back; arrays by name in, arrays out."""

    there: Callable[[dict[str, np.ndarray]], list[np.ndarray]]
    back: Callable[[dict[str, np.ndarray]], list[np.ndarray]]


class Said(NamedTuple):
    """A caption that was followed: its picture, TxV, and every word's gates and the memory after it."""

    picture: Picture
    words: tuple[int, ...]
    log_p: Tensor
    gates: list[np.ndarray]
    memories: list[list[np.ndarray]]


class Speaker:
    """A decoder as a captioner's second half. It may be called from many threads at once."""

    def __init__(self, decoder: Decoder):
        self.decoder, self.layers = decoder, decoder.layers
        self.state, self.bytes = compiled.NOT_YET, 0
        self._ways: Ways | None = None
        self._said: Said | None = None

    def look(self, maps: Tensor) -> Picture:
        return self.decoder.look(maps)

    def first(self, picture: Picture) -> Memory:
        return self.decoder.first(picture)

    def redrawn(self, count: int, seed: int) -> Speaker:
        return Speaker(self.decoder.redrawn(count, seed))

    def step(self, picture: Picture, words: Tensor, memory: tuple[Tensor, ...]) -> tuple[Tensor, Any]:
        if self._ways is None or torch.is_grad_enabled():
            return self.decoder.step(picture, words, memory)
        log_p, _, *after = self._ways.there({
            **_arrays(LOOKED, picture), "words": words.numpy(), **_arrays(MEMORY, memory)})
        return torch.from_numpy(log_p), tuple(map(torch.from_numpy, after))

    def follow(self, picture: Picture, words: Sequence[int]) -> Tensor:
        if self._ways is None or torch.is_grad_enabled():
            return self.decoder.follow(picture, words)
        return self._walk(self._ways, picture, tuple(words))[1]

    def channel_gradients(self, picture: Picture, words: Sequence[int]) -> Tensor:
        if self._ways is None:
            return self.decoder.channel_gradients(picture, words)
        with torch.inference_mode():
            said = self._said                  # of this picture first, if several were asked about
            if said is None or said.words != tuple(words) or not torch.equal(
                    said.picture.values[:1], picture.values):
                said, _ = self._walk(self._ways, picture, tuple(words))
            return self._gradients(self._ways, picture, said)

    def _walk(self, ways: Ways, picture: Picture, words: tuple[int, ...]) -> tuple[Said, Tensor]:
        """The way through a caption; the last one's is kept, because its gradients are asked for next."""
        looked, memory = _arrays(LOOKED, picture), [part.numpy() for part in self.first(picture)]
        steps = []
        for word in (START, *words[:-1]):
            steps.append(ways.there({**looked, "words": np.full((len(picture.values), 1), word),
                                     **dict(zip(MEMORY, memory, strict=True))}))
            memory = steps[-1][2:]
        log_p = torch.from_numpy(np.concatenate([s[0] for s in steps], 1))
        said = self._said = Said(picture, words, log_p[0], [s[1] for s in steps], [s[2:] for s in steps])
        return said, log_p

    def _gradients(self, ways: Ways, picture: Picture, said: Said) -> Tensor:
        """TxC; Decoder.channel_gradients says of what."""
        d, count, units = self.decoder, len(said.words), self.decoder.sizes.units
        looked, places = _arrays(LOOKED, picture), picture.values.shape[1]
        cells = [picture.cell.numpy(), *(memory[1][:1] for memory in said.memories)]
        # A word's gradient at what was seen and at the energies, from its own place back to the first.
        seen = np.zeros((count, count, d.sizes.picture), np.float32)
        energies = np.zeros((count, count, places), np.float32)
        attention = np.zeros((count, places), np.float32)
        at_keys = np.zeros((count, places, d.sizes.attention), np.float32)
        first = self._at_states(said)
        none = np.zeros((1, 1, units), np.float32)
        rows = [none[:0], none[:0], first[:0, :, units:]]
        for t in range(count - 1, -1, -1):
            new = first[t:t + 1, :, :units], none, first[t:t + 1, :, units:]
            rows = [np.concatenate(pair) for pair in zip(new, rows, strict=True)]
            seen[t, t:] = rows[2][:, 0]
            *rows, energies[t, t:], attention[t], at_keys[t] = ways.back({
                **looked, "gates": said.gates[t][:1], "cell": cells[t],
                **{f"at {name}": row for name, row in zip(MEMORY, rows, strict=True)}})
        hidden, cell, mean = (torch.from_numpy(row)[:, 0] for row in rows)
        begun = torch.cat([hidden * (1 - picture.hidden[0] ** 2), cell * (1 - picture.cell[0] ** 2)], 1)
        mean = mean + begun @ d.start["kernel"].T
        # The rest, at relu(M W + b), is summed over the places where that is above zero, as it is averaged.
        alive = (picture.values[0] > 0).float()
        through = torch.einsum("trp,tp->rp", torch.from_numpy(seen), torch.from_numpy(attention) @ alive)
        keys = torch.einsum("trl,tla->rla", torch.from_numpy(energies), torch.from_numpy(at_keys))
        through += ((alive.T @ keys) * d.keys["kernel"]).sum(2)
        return (through / places + mean * (alive.mean(0) / places)) @ d.picture["kernel"].T

    def _at_states(self, said: Said) -> np.ndarray:
        """Tx1x(U+P): d log p of each word at the LSTM's output and at what was seen, where it is said."""
        d = self.decoder
        states = np.concatenate([np.concatenate([m[0][:1], m[2][:1]], 2) for m in said.memories])
        out = torch.tanh(torch.from_numpy(states[:, 0]) @ d.output["kernel"] + d.output["bias"])
        wrong = -said.log_p.exp()
        wrong[range(len(said.words)), said.words] += 1
        return ((wrong @ d.words["table"] * (1 - out ** 2)) @ d.output["kernel"].T)[:, None].numpy()

    def compile(self) -> None:
        """Both ways, seen to do what the decoder does."""
        with compiled.one_by_one:
            if self.state == compiled.NOT_YET:
                self._ways, self.state = compiled.attempted(self._made, type(self.decoder).__name__)

    def _made(self) -> Ways:
        compiled.not_beside_cpu(self.decoder.parameters())
        return Ways(*(self._way(module) for module in (There(self.decoder), Back(self.decoder))))

    def _way(self, word: There | Back) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:
        def check(made: bytes) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:
            ready = compiled.opened(made, threads=1)      # products this small only lose by being shared out
            given = word.inputs()
            found = ready.run(None, {name: part.numpy() for name, part in given.items()})
            with torch.no_grad():
                for ours, theirs in zip(found, word(*given.values()), strict=True):
                    agree(torch.from_numpy(ours), theirs)
            self.bytes += len(made)
            return lambda given: ready.run(None, given)

        return compiled.brought(compiled.key(word), word.file, check)


def example(decoder: Decoder) -> Tensor:
    """Maps of two pictures, the same every time."""
    draw = torch.Generator().manual_seed(0)
    return 2 * torch.rand(2, 49, decoder.sizes.channels, generator=draw)


def agree(ours: Tensor, theirs: Tensor) -> None:
    """Nothing, or an error that says how far they are apart; what is never said is as good as zero."""
    compiled.close(*(Features(rest=(torch.where(part > IMPOSSIBLE, part, 0),)) for part in (ours, theirs)))


def _arrays(names: Sequence[str], tensors: Sequence[Tensor]) -> dict[str, np.ndarray]:
    return {name: part.numpy() for name, part in zip(names, tensors, strict=False)}


class There(nn.Module):
    """Decoder.step, and the gates on its way, as a module with tensors for inputs."""

    outputs = ("log p", "gates", *(f"next {name}" for name in MEMORY))

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, values: Tensor, keys: Tensor, words: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        before = Memory(*memory)
        gates = self.decoder.gates(self.decoder.read(words), before)
        after = self.decoder.advance(Picture(values, keys, *memory), gates, before)
        return self.decoder.say(after.hidden, after.seen), gates, *after

    def inputs(self) -> dict[str, Tensor]:
        """An example: three captions of two pictures."""
        picture = self.decoder.look(example(self.decoder))
        memory = (part.contiguous() for part in self.decoder.first(picture, 3))
        return {**dict(zip(LOOKED, picture, strict=False)), "words": torch.full((2, 3), END),
                **dict(zip(MEMORY, memory, strict=True))}

    def file(self) -> bytes:
        """As an ONNX file's bytes."""
        axes = {name: {0: "n", 1: "b"} for name in ("words", *MEMORY, *self.outputs)}
        return compiled.file_of(self, self.inputs(), [*self.outputs], {
            **axes, **{name: {0: "n", 1: "l"} for name in LOOKED}})


class Back(nn.Module):
    """Decoder.back as such a module."""

    outputs = (*(f"before {name}" for name in MEMORY), "energies", "attention", "at keys")

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, values: Tensor, keys: Tensor, gates: Tensor, cell: Tensor, *after: Tensor
                ) -> tuple[Tensor, ...]:
        return self.decoder.back(Picture(values, keys, *after), gates, cell, Memory(*after))

    def inputs(self) -> dict[str, Tensor]:
        """An example: four gradients."""
        picture = Picture(*(part[:1] for part in self.decoder.look(example(self.decoder))))
        gates = torch.ones(1, 1, 4 * self.decoder.sizes.units)
        after = zip(MEMORY, picture[2:], strict=True)
        return {**dict(zip(LOOKED, picture, strict=False)), "gates": gates, "cell": picture.cell,
                **{f"at {name}": part.repeat(4, 1, 1) for name, part in after}}

    def file(self) -> bytes:
        after = [f"at {name}" for name in MEMORY]
        return compiled.file_of(self, self.inputs(), [*self.outputs], {
            **{name: {0: "r"} for name in (*after, *self.outputs)}, **{name: {1: "l"} for name in LOOKED},
            "energies": {0: "r", 1: "l"}, "attention": {0: "l"}, "at keys": {0: "l"}})
