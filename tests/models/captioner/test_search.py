"""Beam search on a chain whose every probability is written down here."""
from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from models.captioner.search import Sentence, beam_search

START, END = 0, 1
Chain = dict[int, dict[int, float]]


def searches(chains: list[Chain], **options: Any) -> list[list[Sentence]]:
    """The memory is the words so far: a search that loses track of its rows is found out."""
    size = 8

    def step(words: Tensor, memory: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        said = torch.cat([memory[0], words[..., None]], 2)
        log_p = torch.full((*words.shape, size), -1e9)
        for picture, chain in enumerate(chains):
            for row in range(words.shape[1]):
                for word, p in chain.get(int(said[picture, row, -1]), {}).items():
                    log_p[picture, row, word] = math.log(p)
        return log_p, (said,)

    begun = torch.zeros(len(chains), 1, 0, dtype=torch.long)
    return beam_search(step, (begun,), start=START, end=END, **options)


def search(chain: Chain, **options: Any) -> list[Sentence]:
    return searches([chain], **options)[0]


# greedy says 2 first (0.6), then has to go on with 0.5; starting with 3 (0.4) is better as a whole
GARDEN_PATH: Chain = {0: {2: 0.6, 3: 0.4}, 2: {4: 0.5, 5: 0.5}, 3: {6: 1.0},
                      4: {1: 1.0}, 5: {1: 1.0}, 6: {1: 1.0}}


def test_beam_one_is_greedy_and_a_wider_beam_finds_the_better_sentence() -> None:
    greedy, wide = search(GARDEN_PATH, width=1)[0], search(GARDEN_PATH, width=3)[0]
    assert greedy.words[0] == 2 and len(greedy.words) == 2
    assert wide.words == (3, 6)
    assert sum(wide.log_probabilities) == pytest.approx(math.log(0.4))
    assert wide.score() == pytest.approx(math.log(0.4) / 3)


def test_no_bigram_twice() -> None:
    circle: Chain = {0: {2: 1.0}, 2: {3: 0.9, 5: 0.1}, 3: {2: 1.0}, 5: {1: 1.0}}
    assert search(circle, width=1)[0].words == (2, 3, 2, 5)      # and not 2 3 2 3 2 3 ...


def test_never_empty_and_never_longer_than_allowed() -> None:
    eager: Chain = {0: {1: 0.99, 2: 0.01}, 2: {1: 1.0}}
    assert search(eager, width=3)[0].words == (2,)
    line: Chain = {0: {2: 1.0}, 2: {3: 1.0}, 3: {4: 1.0}, 4: {5: 1.0}, 5: {6: 1.0}, 6: {1: 1.0}}
    assert search(line, width=2, longest=4)[0].words == (2, 3, 4, 5)


def test_length_is_made_up_for() -> None:
    # short: 0.5 in two words (with the end); long: 0.5 * 0.9^2 in four
    choice: Chain = {0: {2: 0.5, 3: 0.5}, 2: {1: 1.0}, 3: {4: 0.9, 7: 0.1}, 4: {5: 0.9, 7: 0.1},
                     5: {1: 1.0}, 7: {1: 1.0}}
    assert search(choice, width=3, power=0.0)[0].words == (2,)
    assert search(choice, width=3, power=0.7)[0].words == (3, 4, 5)


def test_a_dead_end_is_left_for_what_is_possible() -> None:
    dead: Chain = {0: {2: 0.9, 3: 0.1}, 2: {}, 3: {1: 1.0}}
    assert [s.words for s in search(dead, width=3)] == [(3,)]


def test_words_and_probabilities_belong_together() -> None:
    for sentence in search(GARDEN_PATH, width=3):
        said = (START, *sentence.words, END)
        expected = [math.log(GARDEN_PATH[a][b]) for a, b in zip(said, said[1:], strict=False)]
        assert list(sentence.log_probabilities) == pytest.approx(expected)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_pictures_searched_together_are_searched_as_alone(width: int) -> None:
    eager: Chain = {0: {1: 0.99, 2: 0.01}, 2: {1: 1.0}}
    circle: Chain = {0: {2: 1.0}, 2: {3: 0.9, 5: 0.1}, 3: {2: 1.0}, 5: {1: 1.0}}
    line: Chain = {0: {2: 1.0}, 2: {3: 1.0}, 3: {4: 1.0}, 4: {5: 1.0}, 5: {6: 1.0}, 6: {1: 1.0}}
    chains = [GARDEN_PATH, eager, circle, line]
    assert searches(chains, width=width) == [search(chain, width=width) for chain in chains]
    assert searches(chains, width=width, longest=3) == [search(c, width=width, longest=3) for c in chains]
