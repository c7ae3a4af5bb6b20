"""BLEU-1..4 and CIDEr of captions, as the COCO tools compute them, on captions already tokenised."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

Ngram = tuple[str, ...]
LONGEST = 4
LENGTH_DEVIATION = 6.0


def ngrams(caption: str, longest: int = LONGEST) -> Counter[Ngram]:
    """How often each run of one to `longest` words occurs."""
    words = caption.split()
    return Counter(tuple(words[i : i + n]) for n in range(1, longest + 1) for i in range(len(words) - n + 1))


def check_pairs(captions: Sequence[str], references: Sequence[Sequence[object]]) -> None:
    """One non-empty list of references for every caption, or a sentence that says what is wrong."""
    if len(captions) != len(references):
        raise ValueError(f"expected references a caption, got {len(references)} for {len(captions)}")
    if not captions or not all(references):
        raise ValueError("expected at least one caption, and at least one reference for each")


def bleu(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """BLEU-1..4 over the whole corpus, clipped counts, closest reference length (Papineni et al. 2002)."""
    check_pairs(captions, references)
    correct, guessed = np.zeros(LONGEST), np.zeros(LONGEST)
    said = wanted = 0
    for caption, refs in zip(captions, references, strict=True):
        length = len(caption.split())
        said += length
        wanted += min((abs(len(r.split()) - length), len(r.split())) for r in refs)[1]
        most: Counter[Ngram] = Counter()
        for ref in refs:
            most |= ngrams(ref)
        for gram, count in ngrams(caption).items():
            correct[len(gram) - 1] += min(count, most[gram])
            guessed[len(gram) - 1] += count
    precision = (correct + 1e-15) / (guessed + 1e-9)
    brevity = min(1.0, math.exp(1 - (wanted + 1e-9) / (said + 1e-15))) if said else 0.0
    return [float(brevity * precision[: n + 1].prod() ** (1 / (n + 1))) for n in range(LONGEST)]


class Cider:
    """CIDEr against fixed references (Vedantam et al. 2015; clipping and length penalty of the COCO tools).

    The references are weighted once, so that the score is also cheap enough to be a reward while training.
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        counted = [[ngrams(ref) for ref in refs] for refs in references]
        self.seen_in: Counter[Ngram] = Counter()
        for refs in counted:
            self.seen_in.update({gram for ref in refs for gram in ref})
        self.log_pictures = math.log(len(references))
        self.references = [[self.weigh(ref) for ref in refs] for refs in counted]

    def weigh(self, counts: Counter[Ngram]) -> tuple[list[dict[Ngram, float]], list[float], int]:
        """TF-IDF per n-gram length, the norms, and the number of word pairs (the tools' length)."""
        vectors: list[dict[Ngram, float]] = [{} for _ in range(LONGEST)]
        for gram, count in counts.items():
            vectors[len(gram) - 1][gram] = count * (self.log_pictures - math.log(max(1, self.seen_in[gram])))
        norms = [math.sqrt(sum(w * w for w in v.values())) for v in vectors]
        return vectors, norms, sum(count for gram, count in counts.items() if len(gram) == 2)

    def one(self, picture: int, caption: str) -> float:
        """CIDEr of one caption of one picture."""
        said, said_norms, said_length = self.weigh(ngrams(caption))
        total = 0.0
        for vectors, norms, length in self.references[picture]:
            penalty = math.exp(-((said_length - length) ** 2) / (2 * LENGTH_DEVIATION**2))
            for mine, theirs, a, b in zip(said, vectors, said_norms, norms, strict=True):
                if a and b:
                    same = sum(min(w, theirs[g]) * theirs[g] for g, w in mine.items() if g in theirs)
                    total += penalty * same / (a * b)
        return 10 * total / (LONGEST * len(self.references[picture]))

    def __call__(self, captions: Sequence[str]) -> float:
        """Mean CIDEr of one caption per picture, in the order of the references."""
        check_pairs(captions, self.references)
        return float(np.mean([self.one(i, caption) for i, caption in enumerate(captions)]))


def score(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """All five figures by name."""
    names = [f"BLEU-{n}" for n in range(1, LONGEST + 1)]
    return {**dict(zip(names, bleu(captions, references), strict=True)), "CIDEr": Cider(references)(captions)}
