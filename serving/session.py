"""What is known of one client: its wish, by version, and the pictures it may come back to."""
from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import RLock
from typing import Any

from models.base import BadInput
from serving.engine import Edits, Wish


@dataclass
class Kept:
    """A picture as it came, and what was erased of it."""

    jpeg: bytes
    edits: Edits | None = None


class Session:
    """One client. Its pictures live here, in memory, and nowhere else for long; they go when it goes."""

    def __init__(self, client: str, wish: Wish, kept: int):
        self.client, self.wish = client, wish
        self.version = 0                       # of what was wished for last; an older one's news is not heard
        self.complained: set[str] = set()      # each complaint of the live explanation is made once
        self.under_way: list[Any] = []   # credits of frames that are not kept: in the model, and waiting
        self.telling = RLock()                 # held while a wish takes effect and is told
        self._pending: Wish | None = None      # wished for, its model still on the way
        self._limit = kept
        self._pictures: OrderedDict[int, Kept] = OrderedDict()

    @property
    def newest(self) -> Wish:
        """What was wished for last, whether its model is here or not."""
        return self._pending or self.wish

    def want(self, wish: Wish) -> int:
        """From now on this is the newest wish; its version."""
        with self.telling:
            self.version += 1
            self._pending = wish
            return self.version

    def settle(self, version: int, came: bool) -> bool:
        """The model of that version's wish is here, or will not come: then the wish before it stays.

        Whether anybody still wants to know.
        """
        with self.telling:
            if version != self.version or self._pending is None:
                return False
            if came:
                self.wish = self._pending
                self.complained.clear()
            self._pending = None
            return True

    def complains(self, message: str) -> bool:
        """Whether this complaint is the first of its kind."""
        with self.telling:
            new = message not in self.complained
            self.complained.add(message)
            return new

    def keep(self, seq: int, jpeg: bytes) -> Kept:
        """Hold a picture by its number; the oldest beyond the limit is forgotten."""
        with self.telling:
            self._pictures.pop(seq, None)
            picture = self._pictures[seq] = Kept(jpeg)
            while len(self._pictures) > self._limit:
                self._pictures.popitem(last=False)
            return picture

    def drop(self, seq: int, picture: Kept) -> None:
        """Forget a picture that turned out to be none, unless another has its number by now."""
        with self.telling:
            if self._pictures.get(seq) is picture:
                del self._pictures[seq]

    def picture(self, seq: Any) -> Kept:
        """The kept picture of that number, or a sentence that says which are kept."""
        with self.telling:
            if isinstance(seq, int) and seq in self._pictures:
                return self._pictures[seq]
            have = ", ".join(map(str, self._pictures)) or "none"
        raise Gone(f"picture {_short(seq)} is no longer kept (kept: {have}); "
                   "freeze or upload it again")

    @property
    def kept(self) -> tuple[int, ...]:
        """The numbers of the kept pictures, oldest first."""
        with self.telling:
            return tuple(self._pictures)


class Gone(BadInput):
    """A picture that was asked for is not here any more."""

    code = "gone"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
