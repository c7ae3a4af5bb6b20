"""The decoder that learns against the one that is shown, and its ways of speaking."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.captioner import decode, network
from training.captioner import learner

WORDS = 30


@pytest.fixture(scope="module")
def decoder() -> learner.Decoder:
    torch.manual_seed(3)
    made = learner.Decoder(WORDS, channels=40).eval()
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


def test_same_probabilities_as_the_keras_decoder(decoder: learner.Decoder, maps: torch.Tensor) -> None:
    words = [7, 12, 5, 29, 4]
    with torch.no_grad():
        mine = taught(decoder, maps, words).numpy()
    weights = {name: w.detach().numpy() for name, w in decoder.named_parameters()}
    picture = network.look_at(weights, maps[:1].numpy().reshape(1, 7, 7, 40))
    keys, memory = network.begin(weights, picture)
    for t, word in enumerate([learner.START, *words]):
        entry = weights["words.table"][[word]] @ weights["lstm.kernel"][:200] + weights["lstm.bias"]
        memory = network.advance(weights, picture, keys, memory, entry)
        both = np.concatenate([memory.hidden, memory.seen], 1)
        out = np.tanh(both @ weights["output.kernel"] + weights["output.bias"])
        logits = out @ weights["words.table"].T + weights["words.bias"]
        logits[:, list(network.NEVER_SAID)] = -1e9
        shifted = logits - logits.max()
        assert mine[t] == pytest.approx((shifted - np.log(np.exp(shifted).sum()))[0], abs=2e-5)


def test_sizes_are_the_ones_the_network_expects() -> None:
    arrays = learner.Decoder(WORDS).arrays()
    network.check_decoder(arrays, WORDS)
    assert {a.dtype for a in arrays.values()} == {np.dtype(np.float16)}


@pytest.mark.parametrize("width", (1, 3))
def test_beams_say_what_the_shown_search_says(
    decoder: learner.Decoder, maps: torch.Tensor, width: int
) -> None:
    for picture, mine in enumerate(decoder.beam(maps, width)):
        with torch.no_grad():
            seen, keys, begun = decoder.look(maps[picture : picture + 1])

            def step(last: np.ndarray, memory: learner.State) -> tuple[np.ndarray, learner.State]:
                after = decoder.step(seen, keys, memory, torch.from_numpy(last)[None])  # noqa: B023
                return decoder.log_probabilities(after[0], after[2])[0].numpy(), after

            with torch.no_grad():
                found = decode.beam_search(
                    step,
                    lambda memory, rows: tuple(m[:, rows] for m in memory),
                    begun,
                    start=learner.START,
                    end=learner.END,
                    width=width,
                )
        assert tuple(mine) == found[0].words


def test_what_is_never_said_is_never_said(decoder: learner.Decoder, maps: torch.Tensor) -> None:
    torch.manual_seed(0)
    said = decoder.say(maps, captions=50, sample=True)
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
    assert again.units == decoder.units
