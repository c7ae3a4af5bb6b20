"""The shipped captioner's decoder: an LSTM that looks at the encoder's last map before every word.

    V = relu(M W + b)                     M: the positions of the encoder's last map, 49 for 224 pixels
    [h0, c0] = tanh(mean(V) W + b),  z0 = mean(V)
    (h, c) = LSTM([word, z], (h, c))      z: what was looked at for the word before
    z = sum_i softmax_i(tanh(V_i W + h W + b) e) V_i
    log p = log softmax(tanh([h, z] W + b) table^T + b)        the words' own table, turned round

A picture's tensors have the picture as their first axis; what belongs to a caption has the captions of one
picture (beams, samples, references) as its second, so that a map is projected once and never copied.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

PAD, START, END, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")
NEVER_SAID = (PAD, START, UNKNOWN)
LAYERS = ("picture", "start", "lstm", "keys", "query", "energy", "output", "words")


class Picture(NamedTuple):
    """A picture as the decoder reads it: values NxLxP, keys NxLxA, and what goes before the first word."""

    values: Tensor
    keys: Tensor
    hidden: Tensor
    cell: Tensor
    seen: Tensor


class Memory(NamedTuple):
    """Between words, NxBx...: the LSTM's state, and what was looked at last."""

    hidden: Tensor
    cell: Tensor
    seen: Tensor


class Sizes(NamedTuple):
    """Of a decoder's layers."""

    words: int
    channels: int = 1280
    picture: int = 256
    word: int = 200
    units: int = 288
    attention: int = 128

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every weight's name and shape, in the order of LAYERS."""
        n, c, p, e, u, a = self
        return {"picture.kernel": (c, p), "picture.bias": (p,), "start.kernel": (p, 2 * u),
                "start.bias": (2 * u,), "lstm.kernel": (e + p, 4 * u), "lstm.recurrent": (u, 4 * u),
                "lstm.bias": (4 * u,), "keys.kernel": (p, a), "query.kernel": (u, a), "query.bias": (a,),
                "energy.kernel": (a, 1), "output.kernel": (u + p, e), "output.bias": (e,),
                "words.table": (n, e), "words.bias": (n,)}


class Decoder(nn.Module):
    """Words from maps; all weights zero until some are put in."""

    picture: nn.ParameterDict
    start: nn.ParameterDict
    lstm: nn.ParameterDict
    keys: nn.ParameterDict
    query: nn.ParameterDict
    energy: nn.ParameterDict
    output: nn.ParameterDict
    words: nn.ParameterDict
    banned: Tensor
    layers = len(LAYERS)

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes = sizes
        for layer in LAYERS:
            self.add_module(layer, nn.ParameterDict(
                {name.partition(".")[2]: nn.Parameter(torch.zeros(shape))
                 for name, shape in sizes.shapes.items() if name.startswith(f"{layer}.")}))
        banned = torch.zeros(sizes.words).index_fill_(0, torch.tensor(NEVER_SAID), -1e9)
        self.register_buffer("banned", banned, persistent=False)

    def drop(self, x: Tensor, part: float = 1.0) -> Tensor:
        """Where something may be dropped while learning; here nothing learns."""
        return x

    def look(self, maps: Tensor) -> Picture:
        """NxLxC, the encoder's maps row by row."""
        return self._begun(self.drop(torch.relu(maps @ self.picture["kernel"] + self.picture["bias"])))

    def _begun(self, values: Tensor) -> Picture:
        mean = values.mean(1, keepdim=True)
        hidden, cell = torch.tanh(mean @ self.start["kernel"] + self.start["bias"]).chunk(2, 2)
        return Picture(values, values @ self.keys["kernel"], hidden, cell, mean)

    def first(self, picture: Picture, captions: int = 1) -> Memory:
        """The memory of so many captions a picture before their first word."""
        return Memory(*(part.expand(-1, captions, -1) for part in picture[2:]))

    def read(self, words: Tensor) -> Tensor:
        """Words of any shape to their part of the LSTM's gates."""
        kernel = self.lstm["kernel"][:self.sizes.word]
        return self.drop(self.words["table"][words]) @ kernel + self.lstm["bias"]

    def gates(self, word: Tensor, memory: Memory) -> Tensor:
        """The LSTM's gates for a word, as read() gives it, after what is remembered."""
        kernel = self.lstm["kernel"][self.sizes.word:]
        return word + memory.seen @ kernel + memory.hidden @ self.lstm["recurrent"]

    def advance(self, picture: Picture, gates: Tensor, memory: Memory) -> Memory:
        """One word further in every caption."""
        i, f, g, o = gates.chunk(4, 2)
        cell = torch.sigmoid(f) * memory.cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        asked = hidden @ self.query["kernel"] + self.query["bias"]
        energy = torch.tanh(picture.keys[:, None] + asked[:, :, None]) @ self.energy["kernel"]
        return Memory(hidden, cell, energy[..., 0].softmax(2) @ picture.values)

    def say(self, hidden: Tensor, seen: Tensor) -> Tensor:
        """Log-probabilities of the next word, over the last axis."""
        both = self.drop(torch.cat([hidden, seen], -1), 4 / 3)
        out = torch.tanh(both @ self.output["kernel"] + self.output["bias"])
        return (out @ self.words["table"].T + (self.words["bias"] + self.banned)).log_softmax(-1)

    def step(self, picture: Picture, words: Tensor, memory: tuple[Tensor, ...]) -> tuple[Tensor, Memory]:
        """For the beam search: the last words NxB to NxBxV log-probabilities and the memory after them."""
        before = Memory(*memory)
        after = self.advance(picture, self.gates(self.read(words), before), before)
        return self.say(after.hidden, after.seen), after

    def _fed(self, words: Sequence[int]) -> Tensor:
        """What is read before each word of a caption, T first."""
        return self.read(torch.tensor([START, *words[:-1]], device=self.banned.device))

    def follow(self, picture: Picture, words: Sequence[int]) -> Tensor:
        """NxTxV: log-probabilities of every word at each place of a caption, given the words before it."""
        memory, states = self.first(picture), []
        for word in self._fed(words):
            memory = self.advance(picture, self.gates(word, memory), memory)
            states.append(memory)
        return self.say(torch.cat([m.hidden for m in states], 1), torch.cat([m.seen for m in states], 1))

    def channel_gradients(self, picture: Picture, words: Sequence[int]) -> Tensor:
        """TxC: d log p(word t) / d maps of one picture, averaged over its positions as Grad-CAM weighs.

        One way back for all words: each has a copy of the picture for itself, and only as far as that word.
        """
        values = picture.values.detach().expand(len(words), -1, -1).requires_grad_()
        with torch.enable_grad():
            own = self._begun(values)
            memory, hidden, seen = self.first(own), [], []
            for word in self._fed(words):
                memory = self.advance(own, self.gates(word, memory), memory)
                hidden.append(memory.hidden[:1])
                seen.append(memory.seen[:1])
                own, memory = Picture(*(p[1:] for p in own)), Memory(*(m[1:] for m in memory))
            log_p = self.say(torch.cat(hidden), torch.cat(seen))[:, 0]
            said = log_p.gather(1, torch.tensor(words, device=log_p.device)[:, None]).sum()
            (at_values,) = torch.autograd.grad(said, values)
        # The rest of the way back, through relu(M W + b), after the average: it would be by far the longest.
        return (at_values * (picture.values > 0)).mean(1) @ self.picture["kernel"].T

    def back(self, picture: Picture, gates: Tensor, cell: Tensor, after: Memory) -> tuple[Tensor, ...]:
        """The way back through a word of one caption of one picture, for many gradients at once.

        From the gates, the cell before it and gradients at the memory after it, each Rx1x..., to those at the
        memory before it (three), at the attention's energies (RxL), the attention (L), and how the energies
        change with the keys (LxA).
        """
        i, f, g, o = gates[0].chunk(4, 1)
        i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        before, out = cell[0], torch.tanh(f * cell[0] + i * g)
        asked = (o * out) @ self.query["kernel"] + self.query["bias"]
        energies = torch.tanh(picture.keys[0] + asked)
        attention = (energies @ self.energy["kernel"])[:, 0].softmax(0)
        at_keys = (1 - energies ** 2) * self.energy["kernel"][:, 0]
        hidden, memory, seen = (part[:, 0] for part in after)
        at_attention = seen @ picture.values[0].T
        at_energies = attention * (at_attention - (attention * at_attention).sum(1, keepdim=True))
        hidden = hidden + (at_energies @ at_keys) @ self.query["kernel"].T
        memory = memory + hidden * (o * (1 - out ** 2))
        at_gates = torch.cat([memory * (g * i * (1 - i)), memory * (before * f * (1 - f)),
                              memory * (i * (1 - g ** 2)), hidden * (out * o * (1 - o))], 1)
        both = at_gates @ torch.cat([self.lstm["recurrent"], self.lstm["kernel"][self.sizes.word:]]).T
        hidden, seen = both.split([self.sizes.units, self.sizes.picture], 1)
        return hidden[:, None], (memory * f)[:, None], seen[:, None], at_energies, attention, at_keys

    def redrawn(self, count: int, seed: int) -> Decoder:
        """A copy whose last `count` layers are drawn anew and whose biases there are zero."""
        other, draw = Decoder(self.sizes), torch.Generator().manual_seed(seed)
        other.load_state_dict(self.state_dict())
        with torch.no_grad():
            for name, weight in other.named_parameters():
                if name.partition(".")[0] in LAYERS[-count:]:
                    fan = weight.shape[1 if name == "words.table" else 0]
                    weight.copy_(torch.randn(weight.shape, generator=draw) * (2 / fan) ** 0.5
                                 if weight.dim() > 1 else torch.zeros(weight.shape))
        return other.to(self.banned.device).requires_grad_(False)


def sizes_of(arrays: Mapping[str, np.ndarray]) -> Sizes:
    """What a decoder file was made with; an error names the array that does not fit the others."""
    def shape(name: str) -> tuple[int, ...]:
        if name not in arrays or arrays[name].ndim != 2:
            raise ValueError(f"the decoder needs the matrix {name}, got "
                             f"{arrays[name].shape if name in arrays else 'nothing'}")
        return arrays[name].shape

    (words, word), (channels, picture) = shape("words.table"), shape("picture.kernel")
    sizes = Sizes(words, channels, picture, word, shape("lstm.recurrent")[0], shape("keys.kernel")[1])
    for name, expected in sizes.shapes.items():
        found = tuple(arrays[name].shape) if name in arrays else "nothing"
        if found != expected:
            raise ValueError(f"the decoder needs {name} of shape {expected}, got {found}")
    return sizes


def put(decoder: Decoder, arrays: Mapping[str, np.ndarray]) -> None:
    """A decoder file's weights, which have the decoder's sizes."""
    own = dict(decoder.named_parameters())
    with torch.no_grad():
        for name in decoder.sizes.shapes:
            own[name].copy_(torch.from_numpy(arrays[name]))


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Decoder:
    """The decoder of a file, ready to speak."""
    decoder = Decoder(sizes_of(arrays)).requires_grad_(False)
    put(decoder, arrays)
    return decoder.eval()
