"""A decoder small enough to work out on paper, and one drawn from a seed."""
from __future__ import annotations

import numpy as np
import pytest

from models.captioner import network
from models.captioner.vocabulary import Vocabulary

WORDS = (*network.SPECIAL, "a", "dog", "runs", "cat")


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary.of(WORDS)


@pytest.fixture
def blank() -> dict[str, np.ndarray]:
    """All zeros: 3 channels, picture 2, words 1, LSTM 1, attention 1."""
    shapes = {"picture.kernel": (3, 2), "picture.bias": (2,), "start.kernel": (2, 2), "start.bias": (2,),
              "words.table": (len(WORDS), 1), "lstm.kernel": (3, 4), "lstm.recurrent": (1, 4),
              "lstm.bias": (4,), "keys.kernel": (2, 1), "query.kernel": (1, 1), "query.bias": (1,),
              "energy.kernel": (1, 1), "output.kernel": (3, 1), "output.bias": (1,),
              "words.bias": (len(WORDS),)}
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


@pytest.fixture
def drawn() -> dict[str, np.ndarray]:
    """Every array of the shipped decoder's shape, small vocabulary, drawn from a seed."""
    rng = np.random.default_rng(0)
    return {name: (rng.standard_normal(shape) / np.sqrt(max(shape[0], 20))).astype(np.float32)
            for name, shape in network.decoder_shapes(len(WORDS), 24).items()}
