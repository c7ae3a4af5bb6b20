"""The decoder against paper, and against the same put together from Keras' layers."""
from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models.captioner import decoder
from tests.models.captioner import oracle

A, DOG, RUNS, CAT, END = 4, 5, 6, 7, decoder.END
MAP = np.array([[0.5, 0, 0], [1.5, 0, 0], [0, 2, 0], [0, 0, 9]], np.float32)       # four positions


def both(arrays: dict, words: tuple[int, ...]) -> list[np.ndarray]:
    """TxV log-probabilities by torch and by Keras."""
    ours = decoder.from_arrays(arrays)
    return [ours.follow(ours.look(torch.from_numpy(MAP[None])), words)[0].numpy(),
            oracle.Decoder(arrays).follow(MAP[None], words).numpy()[0]]


def softmax_of(logits: dict[int, float]) -> dict[int, float]:
    total = sum(math.exp(v) for v in logits.values())
    return {k: v - math.log(total) for k, v in logits.items()}


def test_words_by_their_biases_alone_and_some_never_said(blank: dict) -> None:
    blank["words.bias"][:] = [50, 50, 0, 50, 1, 2, 3, 4]
    on_paper = softmax_of({END: 0, A: 1, DOG: 2, RUNS: 3, CAT: 4})
    for log_p in both(blank, (A, DOG)):
        for word, expected in on_paper.items():
            assert log_p[:, word] == pytest.approx([expected] * 2, abs=1e-5)
        assert (log_p[:, [*decoder.NEVER_SAID]] < -1e8).all()


def test_even_attention_reads_the_mean_of_the_picture(blank: dict) -> None:
    blank["picture.kernel"][0, 0] = 1                 # V = (0.5, 1.5, 0, 0) in its first channel, mean 0.5
    blank["output.kernel"][1, 0] = 1
    blank["words.table"][[A, DOG], 0] = 1, -1
    said = math.tanh(0.5)
    on_paper = softmax_of({END: 0, A: said, DOG: -said, RUNS: 0, CAT: 0})
    for log_p in both(blank, (A,)):
        assert log_p[0, A] == pytest.approx(on_paper[A], abs=1e-6)
        assert log_p[0, DOG] == pytest.approx(on_paper[DOG], abs=1e-6)


def test_sharp_attention_reads_one_position(blank: dict) -> None:
    blank["picture.kernel"][0, 0] = blank["picture.kernel"][2, 1] = 1
    blank["keys.kernel"][1, 0] = 1                    # only the last position has a key
    blank["energy.kernel"][0, 0] = 200
    blank["output.kernel"][2, 0] = 0.1
    blank["words.table"][CAT, 0] = 1
    on_paper = softmax_of({END: 0, A: 0, DOG: 0, RUNS: 0, CAT: math.tanh(0.9)})
    for log_p in both(blank, (CAT,)):
        assert log_p[0, CAT] == pytest.approx(on_paper[CAT], abs=1e-5)


def test_the_lstm_hands_the_last_word_on(blank: dict) -> None:
    blank["words.table"][DOG, 0] = 1                  # x = 1 after "dog", else 0
    blank["lstm.bias"][:] = 30, -30, 0, 30            # all in, nothing kept, all out
    blank["lstm.kernel"][0, 2] = 30
    blank["output.kernel"][0, 0] = 1
    hidden = math.tanh(1)                             # tanh(cell), and the cell is tanh(30)
    after_dog = softmax_of({END: 0, A: 0, DOG: math.tanh(hidden), RUNS: 0, CAT: 0})
    for log_p in both(blank, (DOG, DOG)):
        assert log_p[0, DOG] == pytest.approx(-math.log(5), abs=1e-5)
        assert log_p[1, DOG] == pytest.approx(after_dog[DOG], abs=1e-5)


def test_gradient_of_a_word_on_paper(blank: dict) -> None:
    blank["picture.kernel"][0, 0] = 1
    blank["output.kernel"][1, 0] = 1
    blank["words.table"][A, 0] = 1
    said = math.tanh(0.5)
    slope = (1 - math.exp(softmax_of({END: 0, A: said, DOG: 0, RUNS: 0, CAT: 0})[A])) * (1 - said ** 2)
    ours, maps = decoder.from_arrays(blank), torch.from_numpy(MAP[None]).requires_grad_()
    ours.follow(ours.look(maps), (A,))[0, 0, A].backward()
    # the mean of four, and ReLU is closed where the map is zero
    assert maps.grad is not None
    assert maps.grad[0, :, 0].tolist() == pytest.approx([slope / 4, slope / 4, 0, 0], abs=1e-6)
    weights = ours.channel_gradients(ours.look(maps.detach()), (A,))
    assert weights[0].tolist() == pytest.approx([slope / 8, 0, 0], abs=1e-6)


def test_torch_and_keras_say_the_same(drawn: dict) -> None:
    maps = np.random.default_rng(1).random((1, 49, 24), np.float32) * 3
    words = A, DOG, RUNS, A, CAT, RUNS, DOG, A
    ours, theirs = decoder.from_arrays(drawn), oracle.Decoder(drawn)
    seen = ours.look(torch.from_numpy(maps))
    log_p = ours.follow(seen, words).numpy()
    assert np.abs(log_p - theirs.follow(maps, words).numpy())[..., 2:].max() < 1e-4
    by_tape = theirs.gradients(maps, words).mean(1)
    together = ours.channel_gradients(seen, words).numpy()
    assert np.abs(by_tape).max() > 1e-3
    assert np.abs(by_tape - together).max() < 1e-5 * max(1, np.abs(by_tape).max())


def test_arrays_that_do_not_fit_are_named(drawn: dict) -> None:
    assert decoder.sizes_of(drawn) == decoder.Sizes(8, 24)
    with pytest.raises(ValueError, match=r"words.bias of shape \(8,\), got \(9,\)"):
        decoder.sizes_of({**drawn, "words.bias": np.zeros(9, np.float32)})
    del drawn["keys.kernel"]
    with pytest.raises(ValueError, match="keys.kernel, got nothing"):
        decoder.sizes_of(drawn)


def test_redrawn_layers_are_other_ones_and_the_rest_is_the_same(drawn: dict) -> None:
    ours = decoder.from_arrays(drawn)
    again, same = ours.redrawn(2, seed=1), ours.redrawn(2, seed=1)
    for name, weight in again.named_parameters():
        assert torch.equal(weight, dict(same.named_parameters())[name])
        changed = name.startswith(("output.", "words."))
        assert torch.equal(weight, torch.from_numpy(drawn[name])) != changed, name
