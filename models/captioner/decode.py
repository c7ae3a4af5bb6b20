"""Beam search over any decoder that says, word by word, how probable every next word is."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

LONGEST = 20                 # words of a decoded caption
NORMALISATION = 1.0          # a sentence's log-probability is divided by its length to this power

IMPOSSIBLE = -1e8            # words that are never said have a log-probability far below this

Step = Callable[[np.ndarray, Any], tuple[np.ndarray, Any]]
"""Last words (B,) and memory to log-probabilities (B,V) of the next and the memory after them."""
Pick = Callable[[Any, np.ndarray], Any]
"""The memory of the given rows, in that order; a row may be named twice or not at all."""


@dataclass(frozen=True)
class Sentence:
    """Words without <start> and <end>, and the log-probability of each, <end> last if it was said."""

    words: tuple[int, ...]
    log_probabilities: tuple[float, ...]

    def score(self, power: float = NORMALISATION) -> float:
        """Summed log-probability, normalised for length so that short captions are not favoured."""
        return sum(self.log_probabilities) / len(self.log_probabilities) ** power


def _said_after(words: tuple[int, ...]) -> list[int]:
    """What followed the last word where it was said before: saying it again would repeat a bigram."""
    return [b for a, b in zip(words, words[1:], strict=False) if a == words[-1]]


def beam_search(step: Step, pick: Pick, memory: Any, *, start: int, end: int, width: int = 3,
                longest: int = LONGEST, power: float = NORMALISATION) -> list[Sentence]:
    """The finished sentences, best first; width 1 is greedy. No bigram twice, never an empty caption."""
    live, ended = [Sentence((), ())], []  # type: list[Sentence], list[Sentence]
    last = np.array([start])
    for _ in range(longest):
        log_p, memory = step(last, memory)
        sums = np.array([[sum(s.log_probabilities)] for s in live]) + log_p
        for row, sentence in enumerate(live):
            if sentence.words:
                sums[row, _said_after(sentence.words)] = -np.inf
            else:
                sums[row, end] = -np.inf
        few = min(2 * width, sums.size)
        best = np.argpartition(-sums, few - 1, axis=None)[:few]
        best = best[np.argsort(-sums.ravel()[best], kind="stable")]
        best = best[sums.ravel()[best] > IMPOSSIBLE]
        rows: list[int] = []
        after: list[Sentence] = []
        for rank, (row, word) in enumerate(zip(*np.unravel_index(best, sums.shape), strict=True)):
            said = live[row].log_probabilities + (float(log_p[row, word]),)
            if word == end:
                if rank < width:
                    ended.append(Sentence(live[row].words, said))
            elif len(after) < width:
                after.append(Sentence((*live[row].words, int(word)), said))
                rows.append(int(row))
        live = after
        if not live:
            break
        reachable = max(sum(s.log_probabilities) for s in live) / (longest + 1) ** power
        if len(ended) >= width or any(s.score(power) >= reachable for s in ended):
            return sorted(ended, key=lambda s: -s.score(power))
        last, memory = np.array([s.words[-1] for s in live]), pick(memory, np.array(rows))
    return sorted(ended + live, key=lambda s: -s.score(power))
