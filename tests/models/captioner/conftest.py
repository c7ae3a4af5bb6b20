"""A decoder small enough to work out on paper, and one drawn from a seed."""
from __future__ import annotations

import numpy as np
import pytest

from models.captioner.decoder import SPECIAL, Sizes
from models.captioner.vocabulary import Vocabulary

WORDS = (*SPECIAL, "a", "dog", "runs", "cat")


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary.of(WORDS)


@pytest.fixture
def blank() -> dict[str, np.ndarray]:
    """All zeros: 3 channels, picture 2, words 1, LSTM 1, attention 1."""
    sizes = Sizes(len(WORDS), channels=3, picture=2, word=1, units=1, attention=1)
    return {name: np.zeros(shape, np.float32) for name, shape in sizes.shapes.items()}


@pytest.fixture
def drawn() -> dict[str, np.ndarray]:
    """Every array of the shipped decoder's shape, small vocabulary, drawn from a seed."""
    rng = np.random.default_rng(0)
    return {name: (rng.standard_normal(shape) / np.sqrt(max(shape[0], 20))).astype(np.float32)
            for name, shape in Sizes(len(WORDS), 24).shapes.items()}
