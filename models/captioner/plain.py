"""The decoder of network.py in plain numpy, and its derivative by hand: what makes a live caption cheap.

A step is a few small products, where a framework's cost of calling is most of the time; and the gradients of
all words share one forward pass, which no tape offers. Tests hold both against TensorFlow.
"""
from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import OpenBLASController, ThreadpoolController

from models.captioner.vocabulary import Vocabulary


class _OneThread(AbstractContextManager[None]):
    """One limit that all threads share, since BLAS has one setting for the whole process.

    Who enters first sets it, who leaves last sets it back. A limit for each would restore the 1 that another
    one had set, wherever two overlap, and BLAS would stay at one thread for good.
    """

    def __init__(self) -> None:
        self._blas = ThreadpoolController().select(user_api="blas")
        self._lock = threading.Lock()
        self._inside = 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limit = self._blas.limit(limits=1, user_api="blas")
                # OpenBLAS' limit would belong to this thread alone, and the last one out may be another.
                OpenBLASController.clear_controlling_thread()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limit.restore_original_limits()
                OpenBLASController.clear_controlling_thread()


_one_thread = _OneThread()


def one_thread() -> AbstractContextManager[None]:
    """Products this small only lose by being shared out, and more so beside other threads."""
    return _one_thread


class Memory(NamedTuple):
    """Between words: LSTM state and what was looked at last, one row for each sentence."""

    hidden: np.ndarray
    cell: np.ndarray
    seen: np.ndarray


@dataclass(frozen=True)
class Picture:
    """One picture as the decoder reads it: 49xP values, 49xA keys, and the memory before the first word."""

    values: np.ndarray
    keys: np.ndarray
    first: Memory


class _Step(NamedTuple):
    """What one step leaves behind for its derivative."""

    gates: np.ndarray
    before: Memory
    after: Memory
    energies: np.ndarray
    attention: np.ndarray


class _Way(NamedTuple):
    """Through a caption: its steps, TxV log-probabilities, and the vectors compared with the words' table."""

    steps: list[_Step]
    log_p: np.ndarray
    out: np.ndarray


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * np.tanh(0.5 * x) + 0.5


def _times(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """rows @ matrix; a few rows go one by one, because a general product would first copy the matrix."""
    return np.array([row @ matrix for row in rows]) if len(rows) <= 5 else rows @ matrix


class Decoder:
    """The arrays of decoder.npz, laid out for one picture at a time."""

    def __init__(self, w: Mapping[str, np.ndarray], vocabulary: Vocabulary):
        self.w, self.vocabulary = w, vocabulary
        size = w["words.table"].shape[1]
        self._word_gates = w["words.table"] @ w["lstm.kernel"][:size] + w["lstm.bias"]
        self._recurrent = np.concatenate([w["lstm.kernel"][size:], w["lstm.recurrent"]])
        self._silenced = np.array(w["words.bias"], np.float32)
        self._silenced[list(vocabulary.silent)] = -1e9
        self._followed: tuple[Picture, tuple[int, ...], _Way] | None = None

    def look(self, maps: np.ndarray) -> Picture:
        """49xC, the encoder's map row by row."""
        w = self.w
        values = np.maximum(maps @ w["picture.kernel"] + w["picture.bias"], 0)
        mean = values.mean(0, keepdims=True)
        hidden, cell = np.split(np.tanh(mean @ w["start.kernel"] + w["start.bias"]), 2, -1)
        return Picture(values, values @ w["keys.kernel"], Memory(hidden, cell, mean))

    def first(self, picture: Picture) -> Memory:
        return picture.first

    def pick(self, memory: Memory, rows: np.ndarray) -> Memory:
        return Memory(*(part[rows] for part in memory))

    def _advance(self, picture: Picture, memory: Memory, words: np.ndarray) -> _Step:
        w = self.w
        before = np.concatenate([memory.seen, memory.hidden], 1)
        gates = self._word_gates[words] + _times(before, self._recurrent)
        i, f, g, o = np.split(gates, 4, -1)
        cell = _sigmoid(f) * memory.cell + _sigmoid(i) * np.tanh(g)
        hidden = _sigmoid(o) * np.tanh(cell)
        energies = np.tanh(picture.keys + (hidden @ w["query.kernel"] + w["query.bias"])[:, None])
        attention = (energies @ w["energy.kernel"])[..., 0]
        attention = np.exp(attention - attention.max(-1, keepdims=True))
        attention /= attention.sum(-1, keepdims=True)
        return _Step(gates, memory, Memory(hidden, cell, attention @ picture.values), energies, attention)

    def _say(self, memory: Memory) -> tuple[np.ndarray, np.ndarray]:
        """Log-probabilities of every next word, and the vector that was compared with the words' table."""
        w = self.w
        read = np.concatenate([memory.hidden, memory.seen], 1)
        out = np.tanh(_times(read, w["output.kernel"]) + w["output.bias"])
        logits = _times(out, w["words.table"].T) + self._silenced
        logits -= logits.max(-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True)), out

    def step(self, picture: Picture, words: np.ndarray, memory: Memory) -> tuple[np.ndarray, Memory]:
        """For decode.beam_search."""
        after = self._advance(picture, memory, words).after
        return self._say(after)[0], after

    def _follow(self, picture: Picture, words: tuple[int, ...]) -> _Way:
        """The way through a caption; the last one is kept, because its gradients are asked for next."""
        if self._followed and self._followed[0] is picture and self._followed[1] == words:
            return self._followed[2]
        memory, steps = picture.first, []
        for word in (self.vocabulary.start, *words[:-1]):
            steps.append(self._advance(picture, memory, np.array([word])))
            memory = steps[-1].after
        after = Memory(*(np.concatenate(part) for part in zip(*(s.after for s in steps), strict=True)))
        self._followed = picture, words, _Way(steps, *self._say(after))
        return self._followed[2]

    def teacher_forced(self, picture: Picture, words: tuple[int, ...]) -> np.ndarray:
        """TxV: log-probabilities of every word at each place of a caption, given the words before it."""
        return self._follow(picture, words).log_p.copy()

    def word_gradients(self, picture: Picture, words: tuple[int, ...]) -> np.ndarray:
        """Tx49xP: d log p(word t) / d picture.values, all words in one backward sweep."""
        w, count = self.w, len(words)
        steps, log_p, out = self._follow(picture, words)
        wrong = -np.exp(log_p)
        wrong[np.arange(count), words] += 1
        said = (wrong @ w["words.table"] * (1 - out ** 2)) @ w["output.kernel"].T
        units = steps[0].after.hidden.shape[1]
        d_hidden, d_seen = said[:, :units].copy(), said[:, units:].copy()
        d_cell = np.zeros_like(d_hidden)
        looked = np.zeros((count, *d_seen.shape), np.float32)              # step x word x P
        d_energy = np.zeros((count, count, len(picture.values)), np.float32)   # step x word x 49
        slopes = np.stack([(1 - s.energies[0] ** 2) * w["energy.kernel"][:, 0] for s in steps])
        for t in range(count - 1, -1, -1):
            s, rows = steps[t], slice(t, count)                       # earlier words do not depend on it
            looked[t, rows] = d_seen[rows]
            d_attention = d_seen[rows] @ picture.values.T
            d_attention -= (s.attention * d_attention).sum(1, keepdims=True)
            d_energy[t, rows] = s.attention * d_attention
            d_h = d_hidden[rows] + d_energy[t, rows] @ slopes[t] @ w["query.kernel"].T
            i, f, g, o = np.split(s.gates[0], 4)
            si, sf, so, tg, tc = _sigmoid(i), _sigmoid(f), _sigmoid(o), np.tanh(g), np.tanh(s.after.cell[0])
            d_c = d_cell[rows] + d_h * so * (1 - tc ** 2)
            back = _times(np.concatenate([d_c * tg * si * (1 - si), d_c * s.before.cell[0] * sf * (1 - sf),
                                   d_c * si * (1 - tg ** 2), d_h * tc * so * (1 - so)], 1),
                          self._recurrent.T)
            d_cell[rows] = d_c * sf
            d_seen[rows], d_hidden[rows] = back[:, :-units], back[:, -units:]
        first = np.concatenate([d_hidden, d_cell], 1) * (
            1 - np.concatenate([picture.first.hidden, picture.first.cell], 1) ** 2)
        mean = (first @ w["start.kernel"].T + d_seen) / len(picture.values)
        attention = np.concatenate([s.attention for s in steps])
        through = np.einsum("si,srp->rip", attention, looked, optimize=True)
        d_keys = np.matmul(d_energy.transpose(2, 1, 0), slopes.transpose(1, 0, 2)).transpose(1, 0, 2)
        return through + d_keys @ w["keys.kernel"].T + mean[:, None]

    def channel_gradients(self, picture: Picture, words: tuple[int, ...]) -> np.ndarray:
        """TxC: each word's gradient at the encoder's map, averaged over positions, as Grad-CAM weighs."""
        alive = self.word_gradients(picture, words) * (picture.values > 0)
        return alive.mean(1) @ self.w["picture.kernel"].T
