"""Words and their indices, and what a person may type."""
from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from models.base import BadInput

LONGEST_TYPED = 60
STARTS, ENDS = ("<start>", "startseq", "<s>", "<bos>", "<sos>"), ("<end>", "endseq", "</s>", "<eos>")
OTHERS = ("<pad>", "<unk>", "")


def split(text: str) -> list[str]:
    """Lower-case words; everything except letters, digits, ' and - parts them."""
    return re.sub(r"[^a-z0-9' -]", " ", text.lower()).split()


@dataclass(frozen=True)
class Vocabulary:
    """The word of every index; `start` and `end` frame a caption and are never shown."""

    words: tuple[str, ...]
    start: int
    end: int
    index: dict[str, int] = field(repr=False)

    @property
    def silent(self) -> tuple[int, ...]:
        """Indices that are never said: padding, the start, the unknown word."""
        return tuple(i for i, w in enumerate(self.words) if w in OTHERS or i == self.start)

    @classmethod
    def of(cls, words: Iterable[str], where: str = "the vocabulary") -> Vocabulary:
        """From the words in the order of their indices."""
        known = tuple(w.strip() for w in words)
        index = {w: i for i, w in enumerate(known)}
        frame = [next((index[w] for w in names if w in index), None) for names in (STARTS, ENDS)]
        if frame[0] is None or frame[1] is None:
            missing, names = ("start", STARTS) if frame[0] is None else ("end", ENDS)
            raise BadInput(f"{where} has {len(known)} words but none that marks the {missing} of a caption; "
                           f"one line must be {', '.join(names[:-1])} or {names[-1]}")
        return cls(known, frame[0], frame[1], index)

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """One word a line; the line's number, from 0, is the word's index."""
        return cls.of(Path(path).read_text("utf-8").splitlines(), f"the vocabulary {Path(path).name}")

    def say(self, indices: Iterable[int]) -> str:
        return " ".join(self.words[i] for i in indices)

    def read(self, text: str) -> tuple[int, ...]:
        """A typed caption as indices, or a sentence that says what is wrong with it."""
        typed = split(text)
        if not typed:
            raise BadInput("the caption is empty; type at least one word")
        if len(typed) > LONGEST_TYPED:
            raise BadInput(f"a caption may have at most {LONGEST_TYPED} words, got {len(typed)}; shorten it")
        self._check(typed)
        return tuple(self.index[w] for w in typed)

    def find(self, word: str) -> int:
        """One word's index, or a sentence that names it and what is near."""
        plain = " ".join(split(word)) or word
        self._check([plain])
        return self.index[plain]

    def _check(self, typed: list[str]) -> None:
        unknown = [w for w in dict.fromkeys(typed)
                   if w not in self.index or self.index[w] in (*self.silent, self.end)]
        if unknown:
            near = dict.fromkeys(n for w in unknown for n in difflib.get_close_matches(w, self.index, 2))
            example = f", for example {', '.join(list(near)[:4])}" if near else ""
            raise BadInput(f"the captioner does not know {' and '.join(repr(w) for w in unknown)}; "
                           f"it knows {len(self.words)} words{example}")
