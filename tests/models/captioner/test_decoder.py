"""The decoder against paper, and its two forms, numpy and TensorFlow, against each other."""
from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models.captioner import bridge, network, plain
from models.captioner.network import tf
from models.captioner.vocabulary import Vocabulary

A, DOG, RUNS, CAT, END = 4, 5, 6, 7, network.END
MAP = np.array([[0.5, 0, 0], [1.5, 0, 0], [0, 2, 0], [0, 0, 9]], np.float32)       # four positions


def both(arrays: dict, vocabulary: Vocabulary, words: tuple[int, ...]) -> list[np.ndarray]:
    """TxV log-probabilities by numpy and by TensorFlow."""
    decoder = plain.Decoder(arrays, vocabulary)
    fed = tf.constant([vocabulary.start, *words[:-1]])
    return [decoder.teacher_forced(decoder.look(MAP), words),
            network.teacher_forced(arrays, network.look_at(arrays, tf.constant(MAP[None])), fed).numpy()[0]]


def softmax_of(logits: dict[int, float]) -> dict[int, float]:
    total = sum(math.exp(v) for v in logits.values())
    return {k: v - math.log(total) for k, v in logits.items()}


def test_words_by_their_biases_alone_and_some_never_said(blank: dict, vocabulary: Vocabulary) -> None:
    blank["words.bias"][:] = [50, 50, 0, 50, 1, 2, 3, 4]
    on_paper = softmax_of({END: 0, A: 1, DOG: 2, RUNS: 3, CAT: 4})
    for log_p in both(blank, vocabulary, (A, DOG)):
        for word, expected in on_paper.items():
            assert log_p[:, word] == pytest.approx([expected] * 2, abs=1e-5)
        assert (log_p[:, [network.PAD, network.START, network.UNKNOWN]] < -1e8).all()


def test_even_attention_reads_the_mean_of_the_picture(blank: dict, vocabulary: Vocabulary) -> None:
    blank["picture.kernel"][0, 0] = 1                 # V = (0.5, 1.5, 0, 0) in its first channel, mean 0.5
    blank["output.kernel"][1, 0] = 1
    blank["words.table"][[A, DOG], 0] = 1, -1
    said = math.tanh(0.5)
    on_paper = softmax_of({END: 0, A: said, DOG: -said, RUNS: 0, CAT: 0})
    for log_p in both(blank, vocabulary, (A,)):
        assert log_p[0, A] == pytest.approx(on_paper[A], abs=1e-6)
        assert log_p[0, DOG] == pytest.approx(on_paper[DOG], abs=1e-6)


def test_sharp_attention_reads_one_position(blank: dict, vocabulary: Vocabulary) -> None:
    blank["picture.kernel"][0, 0] = blank["picture.kernel"][2, 1] = 1
    blank["keys.kernel"][1, 0] = 1                    # only the last position has a key
    blank["energy.kernel"][0, 0] = 200
    blank["output.kernel"][2, 0] = 0.1
    blank["words.table"][CAT, 0] = 1
    on_paper = softmax_of({END: 0, A: 0, DOG: 0, RUNS: 0, CAT: math.tanh(0.9)})
    for log_p in both(blank, vocabulary, (CAT,)):
        assert log_p[0, CAT] == pytest.approx(on_paper[CAT], abs=1e-5)


def test_the_lstm_hands_the_last_word_on(blank: dict, vocabulary: Vocabulary) -> None:
    blank["words.table"][DOG, 0] = 1                  # x = 1 after "dog", else 0
    blank["lstm.bias"][:] = 30, -30, 0, 30            # all in, nothing kept, all out
    blank["lstm.kernel"][0, 2] = 30
    blank["output.kernel"][0, 0] = 1
    hidden = math.tanh(1)                             # tanh(cell), and the cell is tanh(30)
    after_dog = softmax_of({END: 0, A: 0, DOG: math.tanh(hidden), RUNS: 0, CAT: 0})
    for log_p in both(blank, vocabulary, (DOG, DOG)):
        assert log_p[0, DOG] == pytest.approx(-math.log(5), abs=1e-5)
        assert log_p[1, DOG] == pytest.approx(after_dog[DOG], abs=1e-5)


def test_gradient_of_a_word_on_paper(blank: dict, vocabulary: Vocabulary) -> None:
    blank["picture.kernel"][0, 0] = 1
    blank["output.kernel"][1, 0] = 1
    blank["words.table"][A, 0] = 1
    said = math.tanh(0.5)
    slope = (1 - math.exp(softmax_of({END: 0, A: said, DOG: 0, RUNS: 0, CAT: 0})[A])) * (1 - said ** 2)
    features = torch.from_numpy(MAP.T.copy()).view(1, 3, 2, 2).requires_grad_()
    score = bridge.scorer(blank, vocabulary.start)(features, (A,), np.array([[A]]))
    score.sum().backward()
    # the mean of four, and ReLU is closed where the map is zero
    assert features.grad is not None
    assert features.grad[0, 0].flatten().tolist() == pytest.approx([slope / 4, slope / 4, 0, 0], abs=1e-6)
    decoder = plain.Decoder(blank, vocabulary)
    weights = decoder.channel_gradients(decoder.look(MAP), (A,))
    assert weights[0].tolist() == pytest.approx([slope / 8, 0, 0], abs=1e-6)


def test_numpy_and_tensorflow_say_the_same(drawn: dict, vocabulary: Vocabulary) -> None:
    maps = np.random.default_rng(1).random((49, 24), np.float32) * 3
    words, decoder = (A, DOG, RUNS, A, CAT, RUNS, DOG, A), plain.Decoder(drawn, vocabulary)
    picture = decoder.look(maps)
    values = network.look_at(drawn, tf.constant(maps[None]))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(values)
        log_p = network.teacher_forced(drawn, values, tf.constant([vocabulary.start, *words[:-1]]))
        each = [log_p[0, t, word] for t, word in enumerate(words)]
    assert np.abs(log_p.numpy()[0] - decoder.teacher_forced(picture, words))[:, 2:].max() < 1e-4
    by_tape = np.stack([tape.gradient(e, values).numpy()[0] for e in each])
    by_hand = decoder.word_gradients(picture, words)
    assert np.abs(by_tape).max() > 1e-3
    assert np.abs(by_tape - by_hand).max() < 1e-5 * max(1, np.abs(by_tape).max())


def test_arrays_that_do_not_fit_are_named(drawn: dict) -> None:
    network.check_decoder(drawn, 8)
    with pytest.raises(ValueError, match=r"words.table of shape \(9, 200\), got \(8, 200\)"):
        network.check_decoder(drawn, 9)
    del drawn["keys.kernel"]
    with pytest.raises(ValueError, match="keys.kernel .* got nothing"):
        network.check_decoder(drawn, 8)
