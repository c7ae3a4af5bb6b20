"""The captions' scores: by hand on tiny cases, and against the COCO tools."""

from __future__ import annotations

import random

import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider as CocoCider

from training.captioner import metrics


def test_bleu_by_hand() -> None:
    # "a dog runs": 2 of 3 words and 1 of 2 pairs are right, and the reference is one word longer.
    got = metrics.bleu(["a dog runs"], [["a dog sits there"]])
    brevity = 2.718281828 ** (1 - 4 / 3)
    assert got[0] == pytest.approx(brevity * 2 / 3, rel=1e-6)
    assert got[1] == pytest.approx(brevity * (2 / 3 * 1 / 2) ** 0.5, rel=1e-6)


def test_cider_by_hand() -> None:
    references = [["a red dog runs"], ["a blue cat sits"]]
    # Its own reference gives 1 for every n-gram length, times 10; words of the other give nothing.
    assert metrics.Cider(references).one(0, "a red dog runs") == pytest.approx(10)
    assert metrics.Cider(references).one(0, "blue cat") == 0
    assert metrics.Cider(references)(["a red dog runs", "a"]) == pytest.approx(5)


@pytest.mark.parametrize("seed", range(3))
def test_same_as_the_coco_tools(seed: int) -> None:
    rng = random.Random(seed)
    words = ["a", "the", "dog", "man", "red", "runs", "on", "grass", "two", "people", "in", "water"]

    def sentence() -> str:
        return " ".join(rng.choices(words, k=rng.randint(1, 14)))

    references = [[sentence() for _ in range(rng.randint(1, 5))] for _ in range(40)]
    captions = [rng.choice([sentence(), rng.choice(refs)]) for refs in references]
    truth = dict(enumerate(references))
    said = {i: [caption] for i, caption in enumerate(captions)}
    coco_bleu, _ = Bleu(4).compute_score(truth, said, verbose=0)
    coco_cider, each = CocoCider().compute_score(truth, said)
    assert metrics.bleu(captions, references) == pytest.approx(coco_bleu, rel=1e-6)
    cider = metrics.Cider(references)
    assert cider(captions) == pytest.approx(coco_cider, rel=1e-6)
    assert [cider.one(i, c) for i, c in enumerate(captions)] == pytest.approx(list(each), rel=1e-6, abs=1e-9)


def test_score_names_every_figure() -> None:
    got = metrics.score(["a dog runs on grass"], [["a dog runs on grass"]])
    assert list(got) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "CIDEr"]
    assert got["BLEU-4"] == pytest.approx(1)


def test_an_empty_caption_scores_nothing() -> None:
    got = metrics.score(["", "a dog"], [["a dog runs"], ["a cat"]])
    assert 0 <= got["CIDEr"] < 10
    assert metrics.bleu([""], [["a dog"]]) == [0, 0, 0, 0]


def test_pairs_that_do_not_match_are_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="got 1 for 2"):
        metrics.bleu(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="at least one reference"):
        metrics.bleu(["a"], [[]])
