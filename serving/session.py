"""What is known of one client: its wish, by version, and the pictures it may come back to."""
from __future__ import annotations

from threading import RLock
from typing import Any

from models.base import BadInput
from serving.engine import Edits, Wish
from serving.limits import Bucket
from serving.pictures import Kept, Pictures
from serving.settings import Settings

PATIENCE = 300                                 # messages that come too fast before the client is hung up on


class Session:
    """One client. Its pictures live in memory, and nowhere else for long; they go when it goes."""

    def __init__(self, client: str, wish: Wish, settings: Settings, pictures: Pictures):
        self.client, self.wish = client, wish
        self.version = 0                       # of what was wished for last; an older one's news is not heard
        self.complained: set[str] = set()      # each complaint of the live explanation is made once
        self.under_way: list[Any] = []         # credits of frames that are not kept: one runs, one waits
        self.telling = RLock()                 # held while a wish takes effect and is told
        self._pending: Wish | None = None      # wished for, its model still on the way
        self._limit, self._pictures = settings.kept, pictures
        self.frames = Bucket(settings.frames_a_second, 2 * settings.frames_a_second)
        self.requests = Bucket(settings.requests_a_second, 5 * settings.requests_a_second)
        self.patience = Bucket(PATIENCE / 10, PATIENCE)

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
        picture = Kept(jpeg)
        self._pictures.keep(self.client, seq, picture, self._limit)
        return picture

    def drop(self, seq: int, picture: Kept) -> None:
        """Forget a picture that turned out to be none, unless another has its number by now."""
        self._pictures.drop(self.client, seq, picture)

    def erase(self, seq: int, picture: Kept, edits: Edits | None) -> None:
        """Note what was erased of a picture."""
        self._pictures.erase(self.client, seq, picture, edits)

    def picture(self, seq: Any) -> Kept:
        """The kept picture of that number, or a sentence that says which are kept."""
        picture = self._pictures.get(self.client, seq) if isinstance(seq, int) else None
        if picture is None:
            have = ", ".join(map(str, self.kept)) or "none"
            raise Gone(f"picture {_short(seq)} is no longer kept (kept: {have}); "
                       "freeze or upload it again")
        return picture

    @property
    def kept(self) -> tuple[int, ...]:
        """The numbers of the kept pictures, oldest first."""
        return tuple(self._pictures.of(self.client))

    def leave(self) -> None:
        """Forget all its pictures."""
        self._pictures.forget(self.client)


class Gone(BadInput):
    """A picture that was asked for is not here any more."""

    code = "gone"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
