"""The caption decoder while it learns: the one that is shipped, with dropout, a start, and ways to sample.

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

from models.captioner import decoder
from models.captioner.decoder import END, NEVER_SAID, PAD, START, UNKNOWN, Memory, Picture, Sizes
from models.captioner.search import LONGEST, beam_search


class Decoder(decoder.Decoder):
    """LSTM with soft attention over the map; embeddings tied with the output."""

    def __init__(self, sizes: Sizes, dropout: float = 0.3) -> None:
        super().__init__(sizes)
        self.dropout = dropout
        self.map_reader: nn.Module = nn.Identity()    # an encoder's last stage while that learns too
        self._start_out()

    @torch.no_grad()
    def _start_out(self) -> None:
        """Glorot's uniform start; words small, what recurs a rotation, the forget gate open."""
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                weight.uniform_(-1, 1).mul_(math.sqrt(6 / sum(weight.shape)))
            if name == "words.table":
                weight.normal_(0, 0.08)
            if name == "lstm.recurrent":
                for gate in weight.chunk(4, 1):
                    nn.init.orthogonal_(gate)
            if name == "lstm.bias":
                weight.chunk(4)[1].fill_(1.0)

    def drop(self, x: Tensor, part: float = 1.0) -> Tensor:
        return F.dropout(x, part * self.dropout, self.training)

    def look(self, maps: Tensor) -> Picture:
        # Whole channels are dropped: drawing a number for every place costs more than it helps.
        maps = self.map_reader(maps)
        return super().look(maps * self.drop(torch.ones_like(maps[:, :1]), 0.3))

    def forward(self, maps: Tensor, captions: Tensor, wanted: Tensor) -> Tensor:
        """Log-probabilities after each word of captions (pictures, captions, words), where wanted is true."""
        picture = self.look(maps)
        memory, hidden, seen = self.first(picture, captions.shape[1]), [], []
        for t in range(captions.shape[2]):
            gates = self.gates(self.read(captions[:, :, t]), memory)
            memory = self.advance(picture, gates, memory)
            hidden.append(memory.hidden)
            seen.append(memory.seen)
        return self.say(torch.stack(hidden, 2)[wanted], torch.stack(seen, 2)[wanted])

    @torch.no_grad()
    def speak(self, maps: Tensor, captions: int = 1, sample: bool = False) -> Tensor:
        """Greedy or sampled captions (pictures, captions, words), ended with END and filled with PAD."""
        picture = self.look(maps)
        memory: Memory = self.first(picture, captions)
        words = torch.full((len(maps), captions), START)
        over = torch.zeros_like(words, dtype=torch.bool)
        said: list[Tensor] = []
        while len(said) < LONGEST and not over.all():
            logp, memory = self.step(picture, words, memory)
            words = torch.distributions.Categorical(logits=logp).sample() if sample else logp.argmax(-1)
            words = words.masked_fill(over, PAD)
            over = over | (words == END)
            said.append(words)
        return torch.stack(said, 2)

    @torch.no_grad()
    def beam(self, maps: Tensor, width: int = 3) -> list[list[int]]:
        """The best of `width` beams a picture, without END."""
        picture = self.look(maps)
        found = beam_search(lambda words, memory: self.step(picture, words, memory), self.first(picture),
                            start=START, end=END, width=width)
        return [list(sentences[0].words) for sentences in found]

    def arrays(self) -> dict[str, NDArray[np.float16]]:
        """Every weight of its own by name, as the shipped file holds it."""
        own = ((name, w) for name, w in self.named_parameters() if name in self.sizes.shapes)
        return {name: w.detach().numpy().astype(np.float16) for name, w in own}


def from_arrays(arrays: dict[str, NDArray[np.floating]]) -> Decoder:
    """A decoder with the sizes and weights of a shipped file."""
    made = Decoder(decoder.sizes_of(arrays))
    decoder.put(made, {name: a.astype(np.float32) for name, a in arrays.items()})
    return made


__all__ = ["END", "NEVER_SAID", "PAD", "START", "UNKNOWN", "Decoder", "Sizes", "from_arrays"]
