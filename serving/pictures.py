"""The pictures that clients may come back to: in memory, bounded for all of them together."""
from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import count
from threading import RLock

from serving.engine import Edits


@dataclass
class Kept:
    """A picture as it came, and what was erased of it."""

    jpeg: bytes
    edits: Edits | None = None
    order: int = 0                             # a later one has a higher number

    @property
    def bytes(self) -> int:
        return len(self.jpeg) + (len(self.edits.mask) if self.edits else 0)


class Pictures:
    """The kept pictures of all clients within one bound of bytes: those used longest ago go first."""

    def __init__(self, most: int):
        self._most, self._lock = most, RLock()
        self._kept: OrderedDict[tuple[str, int], Kept] = OrderedDict()
        self._order = count(1)
        self.bytes = 0

    def keep(self, client: str, seq: int, picture: Kept, limit: int) -> None:
        """Hold a picture, and of this client's at most `limit`."""
        with self._lock:
            picture.order = next(self._order)
            self._put(client, seq, picture)
            for mine in self.of(client)[:-limit]:
                self.drop(client, mine)

    def erase(self, client: str, seq: int, picture: Kept, edits: Edits | None) -> None:
        """Note what was erased of it, which takes room too."""
        with self._lock:
            held = self._kept.get((client, seq)) is picture
            if held:
                self.drop(client, seq)
            picture.edits = edits
            if held:
                self._put(client, seq, picture)

    def get(self, client: str, seq: int) -> Kept | None:
        with self._lock:
            if (client, seq) in self._kept:
                self._kept.move_to_end((client, seq))
            return self._kept.get((client, seq))

    def drop(self, client: str, seq: int, only: Kept | None = None) -> None:
        """Forget the picture of that number, or that one alone."""
        with self._lock:
            if only is None or self._kept.get((client, seq)) is only:
                picture = self._kept.pop((client, seq), None)
                self.bytes -= picture.bytes if picture else 0

    def of(self, client: str) -> list[int]:
        """The numbers of a client's pictures, in the order in which they came."""
        with self._lock:
            mine = [(picture.order, seq) for (whose, seq), picture in self._kept.items() if whose == client]
        return [seq for _, seq in sorted(mine)]

    def forget(self, client: str) -> None:
        """A client has left."""
        with self._lock:
            for seq in self.of(client):
                self.drop(client, seq)

    def _put(self, client: str, seq: int, picture: Kept) -> None:
        self.drop(client, seq)
        self._kept[client, seq] = picture
        self.bytes += picture.bytes
        while self.bytes > self._most:
            self.drop(*next(iter(self._kept)))
