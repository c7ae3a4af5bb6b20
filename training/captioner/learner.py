"""The caption decoder in torch, for training: equations and names of the Keras network that is shown.

A picture's map is (pictures, places, channels). Everything else carries a second axis of captions per picture
(five references, samples or beams), so that the map is projected once a picture and never copied.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.captioner.decode import NORMALISATION

PAD, START, END, UNKNOWN = 0, 1, 2, 3
NEVER_SAID = (PAD, START, UNKNOWN)
LONGEST_CAPTION = 20
State = tuple[Tensor, Tensor, Tensor]


def weight(rows: int, columns: int) -> nn.Parameter:
    """Glorot's uniform start."""
    return nn.Parameter(torch.empty(rows, columns).uniform_(-1, 1) * math.sqrt(6 / (rows + columns)))


def dense(inputs: int, outputs: int, bias: bool = True) -> nn.ParameterDict:
    """A kernel (inputs, outputs) and, usually, a bias."""
    both = {"kernel": weight(inputs, outputs)}
    return nn.ParameterDict({**both, "bias": nn.Parameter(torch.zeros(outputs))} if bias else both)


class Decoder(nn.Module):
    """LSTM with soft attention over the map; embeddings tied with the output."""

    def __init__(
        self,
        words: int,
        channels: int = 1280,
        picture: int = 256,
        word: int = 200,
        units: int = 288,
        attention: int = 128,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.units, self.dropout = units, dropout
        self.read: nn.Module = nn.Identity()          # an encoder's last stage while that learns too
        self.picture = dense(channels, picture)
        self.start = dense(picture, 2 * units)
        self.words = nn.ParameterDict(
            {"table": nn.Parameter(torch.randn(words, word) * 0.08), "bias": nn.Parameter(torch.zeros(words))}
        )
        recurrent = torch.cat([torch.linalg.qr(torch.randn(units, units))[0] for _ in range(4)], 1)
        self.lstm = nn.ParameterDict(
            {
                "kernel": weight(word + picture, 4 * units),
                "recurrent": nn.Parameter(recurrent),
                # The forget gate starts open.
                "bias": nn.Parameter(torch.zeros(4, units).index_fill_(0, torch.tensor([1]), 1.0).flatten()),
            }
        )
        self.keys = dense(picture, attention, bias=False)
        self.query = dense(units, attention)
        self.energy = dense(attention, 1, bias=False)
        self.output = dense(units + picture, word)
        banned = torch.zeros(words).index_fill_(0, torch.tensor(NEVER_SAID), -1e9)
        self.register_buffer("banned", banned, persistent=False)

    def drop(self, x: Tensor, part: float = 1.0) -> Tensor:
        return F.dropout(x, part * self.dropout, self.training)

    def look(self, maps: Tensor, captions: int = 1) -> tuple[Tensor, Tensor, State]:
        """What is seen at every place, the attention's keys, and the state before the first word."""
        # Whole channels are dropped: drawing a number for every place costs more than it helps.
        maps = self.read(maps)
        maps = maps * self.drop(torch.ones_like(maps[:, :1]), 0.3)
        seen = self.drop(torch.relu(maps @ self.picture["kernel"] + self.picture["bias"]))
        mean = seen.mean(1, keepdim=True).expand(-1, captions, -1)
        hidden, cell = torch.tanh(mean @ self.start["kernel"] + self.start["bias"]).split(self.units, 2)
        return seen, seen @ self.keys["kernel"], (hidden, cell, mean)

    def step(self, seen: Tensor, keys: Tensor, state: State, words: Tensor) -> State:
        """One word further: words (pictures, captions)."""
        hidden, cell, glimpse = state
        x = torch.cat([self.drop(self.words["table"][words]), glimpse], 2)
        gates = x @ self.lstm["kernel"] + hidden @ self.lstm["recurrent"] + self.lstm["bias"]
        i, f, g, o = gates.split(self.units, 2)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        asked = hidden @ self.query["kernel"] + self.query["bias"]
        energy = torch.tanh(keys[:, None] + asked[:, :, None]) @ self.energy["kernel"]
        return hidden, cell, torch.softmax(energy[..., 0], 2) @ seen

    def log_probabilities(self, hidden: Tensor, glimpse: Tensor) -> Tensor:
        """Of the next word, over the last axis."""
        both = self.drop(torch.cat([hidden, glimpse], -1), 4 / 3)
        out = torch.tanh(both @ self.output["kernel"] + self.output["bias"])
        return F.log_softmax(out @ self.words["table"].T + self.words["bias"] + self.banned, -1)

    def forward(self, maps: Tensor, captions: Tensor, wanted: Tensor) -> Tensor:
        """Log-probabilities after each word of captions (pictures, captions, words), where wanted is true."""
        seen, keys, state = self.look(maps, captions.shape[1])
        hidden, glimpses = [], []
        for t in range(captions.shape[2]):
            state = self.step(seen, keys, state, captions[:, :, t])
            hidden.append(state[0])
            glimpses.append(state[2])
        return self.log_probabilities(torch.stack(hidden, 2)[wanted], torch.stack(glimpses, 2)[wanted])

    @torch.no_grad()
    def say(self, maps: Tensor, captions: int = 1, sample: bool = False) -> Tensor:
        """Greedy or sampled captions (pictures, captions, words), ended with END and filled with PAD."""
        seen, keys, state = self.look(maps, captions)
        words = torch.full((len(maps), captions), START)
        over = torch.zeros_like(words, dtype=torch.bool)
        said: list[Tensor] = []
        while len(said) < LONGEST_CAPTION and not over.all():
            state = self.step(seen, keys, state, words)
            logp = self.log_probabilities(state[0], state[2])
            words = torch.distributions.Categorical(logits=logp).sample() if sample else logp.argmax(-1)
            words = words.masked_fill(over, PAD)
            over = over | (words == END)
            said.append(words)
        return torch.stack(said, 2)

    @torch.no_grad()
    def beam(self, maps: Tensor, width: int = 3) -> list[list[int]]:
        """The best of `width` beams a picture, without END; decode.beam_search for many pictures at once."""
        seen, keys, state = self.look(maps, width)
        pictures, table = len(maps), len(self.words["bias"])
        said = torch.full((pictures, width, 1), START)
        score = torch.full((pictures, width), -1e9)
        score[:, 0] = 0
        ended: list[list[tuple[float, list[int]]]] = [[] for _ in range(pictures)]
        open_still = list(range(pictures))
        for length in range(1, LONGEST_CAPTION + 1):
            state = self.step(seen, keys, state, said[:, :, -1])
            logp = self.log_probabilities(state[0], state[2])
            if length == 1:
                logp[:, :, END] = -1e9
            for t in range(1, length - 1):
                again = (said[:, :, t] == said[:, :, -1]).float() * -1e9
                logp.scatter_add_(2, said[:, :, t + 1 : t + 2], again[..., None])
            best, place = (score[..., None] + logp).flatten(1).topk(2 * width, 1)
            rows: list[list[tuple[int, int, float]]] = []
            for p, (values, places) in enumerate(zip(best.tolist(), place.tolist(), strict=True)):
                kept: list[tuple[int, int, float]] = []
                for rank, (value, (beam, word)) in enumerate(
                    zip(values, (divmod(i, table) for i in places), strict=True)
                ):
                    if word != END:
                        kept.append((beam, word, value))
                    elif rank < width and p in open_still:
                        ended[p].append((value / length**NORMALISATION, said[p, beam, 1:].tolist()))
                rows.append(kept[:width])
            index = torch.tensor([[beam for beam, _, _ in kept] for kept in rows])[..., None]
            words = torch.tensor([[[word] for _, word, _ in kept] for kept in rows])
            score = torch.tensor([[value for _, _, value in kept] for kept in rows])
            said = torch.cat([said.gather(1, index.expand(-1, -1, length)), words], 2)
            hidden, cell, glimpse = (s.gather(1, index.expand(-1, -1, s.shape[2])) for s in state)
            state = (hidden, cell, glimpse)
            reachable = (score.max(1)[0] / (LONGEST_CAPTION + 1) ** NORMALISATION).tolist()
            open_still = [
                p for p in open_still if len(ended[p]) < width and all(e[0] < reachable[p] for e in ended[p])
            ]
            if not open_still:
                break
        for p in open_still:
            ended[p] += [
                (v / LONGEST_CAPTION**NORMALISATION, w)
                for v, w in zip(score[p].tolist(), said[p, :, 1:].tolist(), strict=True)
            ]
        return [max(e)[1] for e in ended]

    def arrays(self) -> dict[str, NDArray[np.float16]]:
        """Every weight of its own by name, as the shipped file holds it."""
        own = ((name, w) for name, w in self.named_parameters() if not name.startswith("read."))
        return {name: w.detach().numpy().astype(np.float16) for name, w in own}


def from_arrays(arrays: dict[str, NDArray[np.floating]]) -> Decoder:
    """A decoder with the sizes and weights of a shipped file."""
    shape = {name: a.shape for name, a in arrays.items()}
    decoder = Decoder(
        words=shape["words.table"][0],
        channels=shape["picture.kernel"][0],
        picture=shape["picture.kernel"][1],
        word=shape["words.table"][1],
        units=shape["lstm.recurrent"][0],
        attention=shape["keys.kernel"][1],
    )
    decoder.load_state_dict({name: torch.from_numpy(a.astype(np.float32)) for name, a in arrays.items()})
    return decoder
