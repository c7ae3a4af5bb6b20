"""A room's code: four plain words, drawn by chance; and how often one may guess."""
from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from time import monotonic

from serving.limits import Bucket, Buckets

COUNT = 4
# Short, known to children, said and heard without doubt: no two that sound alike, none that offends.
WORDS = tuple(Path(__file__).with_name("words.txt").read_text("ascii").split())

OF_ONE = 1 / 3, 20                             # wrong codes a second of one address, and so many at once ...
OF_ALL = 10, 200                               # ... and of everybody together
SPOKEN = re.compile(r"[^a-z]+")


def new() -> str:
    """Four words with hyphens between them: one of 14 thousand million."""
    return "-".join(secrets.choice(WORDS) for _ in range(COUNT))


def read(text: object) -> str:
    """The code that somebody typed, whatever stands between its words; nothing when it can be none."""
    if not isinstance(text, str) or len(text) > 100:
        return ""
    return SPOKEN.sub("-", text.strip().lower()).strip("-")


class Tries:
    """Counts wrong codes. Right ones are free, but nobody who guessed too often is told which are right."""

    def __init__(self, clock: Callable[[], float] = monotonic):
        self._lock, self._all, self._of = Lock(), Bucket(*OF_ALL, clock), Buckets(*OF_ONE, clock)

    def allowed(self, address: str) -> bool:
        """Whether a code from there is looked up at all."""
        with self._lock:
            return self._all.has() and self._of.of(address).has()

    def wrong(self, address: str) -> None:
        """A code from there was none."""
        with self._lock:
            self._of.of(address).take()
            self._all.take()
