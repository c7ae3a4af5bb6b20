"""Beam search over any decoder that says, word by word, how probable every next word is."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LONGEST = 20                 # words of a decoded caption
NORMALISATION = 1.0          # a sentence's log-probability is divided by its length to this power

IMPOSSIBLE = -1e8            # words that are never said have a log-probability far below this
NEVER = -1e9

Memory = tuple[Tensor, ...]
"""What a decoder remembers between words: pictures first, then the sentences of each."""
Step = Callable[[Tensor, Memory], tuple[Tensor, Memory]]
"""Last words NxB and memory to log-probabilities NxBxV of the next, and the memory after them."""


@dataclass(frozen=True)
class Sentence:
    """Words without <start> and <end>, and the log-probability of each, <end> last if it was said."""

    words: tuple[int, ...]
    log_probabilities: tuple[float, ...]

    @property
    def sum(self) -> float:
        return sum(self.log_probabilities)

    def score(self, power: float = NORMALISATION) -> float:
        """Summed log-probability, normalised for length so that short captions are not favoured."""
        return self.sum / len(self.log_probabilities) ** power


class Beam:
    """The sentences of one picture: those that go on, and those that have ended."""

    def __init__(self, width: int, longest: int, power: float):
        self.live, self.ended = [Sentence((), ())], []  # type: list[Sentence], list[Sentence]
        self.over = False                      # nothing better can come
        self._width, self._longest, self._power = width, longest, power

    def ruled_out(self, end: int) -> list[tuple[int, int]]:
        """Row and word of what must not be said: an empty caption, and any two words in a row twice."""
        out = []
        for row, sentence in enumerate(self.live):
            said = sentence.words
            if not said:
                out.append((row, end))
            out += [(row, b) for a, b in zip(said, said[1:], strict=False) if a == said[-1]]
        return out

    def extend(self, candidates: list[tuple[int, int, float]], end: int) -> list[int]:
        """Take the best of (row, word, log-probability), best first; the rows that go on."""
        rows: list[int] = []
        after: list[Sentence] = []
        for rank, (row, word, log_p) in enumerate(candidates):
            said = (*self.live[row].log_probabilities, log_p)
            if word == end:
                if rank < self._width:
                    self.ended.append(Sentence(self.live[row].words, said))
            elif len(after) < self._width:
                after.append(Sentence((*self.live[row].words, word), said))
                rows.append(row)
        reachable = max((s.sum for s in after), default=0.0) / (self._longest + 1) ** self._power
        self.over = (not after or len(self.ended) >= self._width
                     or any(s.score(self._power) >= reachable for s in self.ended))
        self.live = [] if self.over else after
        return rows if self.live else []

    def best(self) -> list[Sentence]:
        """What was finished, best first; where the words ran out, what was not finished too."""
        return sorted(self.ended + self.live, key=lambda s: -s.score(self._power))


def beam_search(step: Step, memory: Memory, *, start: int, end: int, width: int = 3, longest: int = LONGEST,
                power: float = NORMALISATION) -> list[list[Sentence]]:
    """For every picture of a memory of one row each its sentences, best first; width 1 is greedy."""
    beams = [Beam(width, longest, power) for _ in range(len(memory[0]))]
    where = memory[0].device
    last = torch.full((len(beams), 1), start, device=where)
    so_far = torch.zeros(len(beams), 1, device=where)
    for _ in range(longest):
        log_p, memory = step(last, memory)
        sums = log_p + so_far[..., None]
        if out := [(p, *place) for p, beam in enumerate(beams) for place in beam.ruled_out(end)]:
            sums[tuple(torch.tensor(out, device=where).T)] = NEVER
        best, places = sums.flatten(1).topk(min(2 * width, sums[0].numel()), 1)
        said = log_p.flatten(1).gather(1, places)
        few = [[(*divmod(place, log_p.shape[2]), log) for value, place, log in zip(*own, strict=True)
                if value > IMPOSSIBLE]
               for own in zip(best.tolist(), places.tolist(), said.tolist(), strict=True)]
        rows = [[] if beam.over else beam.extend(own, end) for beam, own in zip(beams, few, strict=True)]
        if all(beam.over for beam in beams):
            break
        # Every picture keeps as many rows; those that fill up have no chance.
        index, last, so_far = (torch.tensor(_filled(of_each, rest), device=where) for of_each, rest in (
            (rows, 0), ([[s.words[-1] for s in b.live] for b in beams], 0),
            ([[s.sum for s in b.live] for b in beams], NEVER)))
        pictures = torch.arange(len(beams), device=where)[:, None]
        memory = tuple(part[pictures, index] for part in memory)
    return [beam.best() for beam in beams]


def _filled(of_each: list[list[Any]], rest: float) -> list[list[Any]]:
    most = max(map(len, of_each))
    return [own + [rest] * (most - len(own)) for own in of_each]
