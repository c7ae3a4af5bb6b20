"""The decoder that learns against the one that is shown, and its ways of speaking."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.captioner.decoder import from_arrays, sizes_of
from training.captioner import learner

WORDS = 30


@pytest.fixture(scope="module")
def decoder() -> learner.Decoder:
    torch.manual_seed(3)
    made = learner.Decoder(learner.Sizes(WORDS, 40)).eval()
    with torch.no_grad():
        made.words["table"].mul_(20)
    return made


@pytest.fixture(scope="module")
def maps() -> torch.Tensor:
    return torch.rand(6, 49, 40, generator=torch.Generator().manual_seed(1)) * 3


def taught(decoder: learner.Decoder, maps: torch.Tensor, words: list[int]) -> torch.Tensor:
    """Log-probabilities after START and each word, for the first picture."""
    fed = torch.tensor([[[learner.START, *words]]])
    return decoder(maps[:1], fed, torch.ones_like(fed, dtype=torch.bool))


def test_it_says_what_the_shown_one_says(decoder: learner.Decoder, maps: torch.Tensor) -> None:
    words = [7, 12, 5, 29, 4]
    shown = from_arrays({name: w.detach().numpy() for name, w in decoder.named_parameters()})
    with torch.no_grad():
        mine = taught(decoder, maps, words)
        assert torch.allclose(shown.follow(shown.look(maps[:1]), [*words, 4])[0], mine, atol=2e-5)


def test_sizes_are_the_ones_the_network_expects() -> None:
    arrays = learner.Decoder(learner.Sizes(WORDS)).arrays()
    assert sizes_of(arrays) == learner.Sizes(WORDS)
    assert {a.dtype for a in arrays.values()} == {np.dtype(np.float16)}


def test_one_beam_is_greedy_where_nothing_would_be_said_twice(
    decoder: learner.Decoder, maps: torch.Tensor
) -> None:
    for beam, said in zip(decoder.beam(maps, 1), decoder.speak(maps)[:, 0].tolist(), strict=True):
        pairs = list(zip(said, said[1:], strict=False))
        if said[0] != learner.END and len(set(pairs)) == len(pairs):
            assert beam == [w for w in said if w not in (learner.END, learner.PAD)]


def test_what_is_never_said_is_never_said(decoder: learner.Decoder, maps: torch.Tensor) -> None:
    torch.manual_seed(0)
    said = decoder.speak(maps, captions=50, sample=True)
    assert not torch.isin(said, torch.tensor([learner.START, learner.UNKNOWN])).any()
    after = (said == learner.END).cumsum(2) - (said == learner.END).int() > 0
    assert (said[after] == learner.PAD).all()
    assert (said[~after] != learner.PAD).all()


def test_captions_of_one_picture_do_not_touch_each_other(
    decoder: learner.Decoder, maps: torch.Tensor
) -> None:
    fed = torch.randint(4, WORDS, (6, 3, 7), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        every = decoder(maps, fed, torch.ones_like(fed, dtype=torch.bool)).view(6, 3, 7, -1)
        alone = decoder(maps, fed[:, 1:2], torch.ones_like(fed[:, 1:2], dtype=torch.bool)).view(6, 1, 7, -1)
    assert torch.allclose(every[:, 1:2], alone, atol=1e-5)


def test_a_file_gives_the_decoder_back(decoder: learner.Decoder, maps: torch.Tensor) -> None:
    again = learner.from_arrays(decoder.arrays()).eval()
    with torch.no_grad():
        assert torch.allclose(taught(again, maps, [5, 6]), taught(decoder, maps, [5, 6]), atol=0.1)
    assert again.sizes == decoder.sizes
