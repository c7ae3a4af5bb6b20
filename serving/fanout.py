"""Brings everybody who watches a room up to date: one thread for all rooms, and never a queue.

What a room shows is a few pieces, each only in its newest form (the picture, its result, its map, the tab).
A viewer is a number: the version it has. Whoever reads slowly is later given what is newest then, and whoever
comes late is given all pieces; both are the same. A piece is put into WebSocket frames once, for everybody.
"""
from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition, RLock, Thread
from time import monotonic
from typing import Any

from serving.packets import framed
from serving.websocket import Wire

log = logging.getLogger("seewhy")

Message = tuple[str, dict[str, Any]]
SOON = 0.15                                    # seconds that a picture waits for its map, to go out with it
PACE = 1 / 40                                  # seconds between two rounds: no eye wants more, and it costs
AGAIN = 0.02                                   # how soon those who took nothing are tried again
TICK = 1.0                                     # how often rooms are looked after


@dataclass
class Piece:
    """One thing that a room shows, and since which version."""

    message: Message
    version: int
    frames: bytes | None = None


class Stage:
    """What one room shows."""

    def __init__(self) -> None:
        self.version = 0
        self._pieces: dict[str, Piece] = {}
        self._lock = RLock()
        self._joined: dict[int, bytes] = {}    # for viewers of these versions, what brings them to the newest

    def put(self, **pieces: Message | None) -> None:
        """All at once; None takes a piece away, which nobody is told."""
        with self._lock:
            for name, message in pieces.items():
                self._pieces.pop(name, None)   # put last again: they go out in the order in which they came
                if message is not None:
                    self.version += 1
                    self._pieces[name] = Piece(message, self.version)
            self._joined.clear()

    def __getitem__(self, name: str) -> dict[str, Any] | None:
        """The fields of a piece."""
        with self._lock:
            piece = self._pieces.get(name)
            return piece.message[1] if piece else None

    def since(self, version: int) -> tuple[list[Message], int]:
        """What a viewer with this version does not have, and the version that is reached by it."""
        with self._lock:
            return [piece.message for piece in self._newer(version)], self.version

    def frames_since(self, version: int) -> tuple[bytes, int]:
        """The same as they go over the wire."""
        with self._lock:
            if version not in self._joined:
                newer = self._newer(version)
                for piece in newer:
                    piece.frames = piece.frames or framed(*piece.message)
                self._joined[version] = b"".join(piece.frames or b"" for piece in newer)
            return self._joined[version], self.version

    def _newer(self, version: int) -> list[Piece]:
        """Whoever has nothing yet is greeted with `ready`, and need not hear it twice."""
        return [piece for name, piece in self._pieces.items()
                if piece.version > version and (version or name != "ready")]


@dataclass(eq=False)
class Seat:
    """One viewer: which version it has, or will have when it has read what was begun."""

    client: str
    stage: Stage
    wire: Wire | None                          # without one (in a test) it is told message by message
    greeting: Callable[[], Message] | None     # what it is told before anything else
    version: int = 0
    since: float = field(default_factory=monotonic)


class Fanout:
    """Everybody's seats, and the thread that serves them."""

    def __init__(self, send: Callable[[str, str, dict[str, Any]], None], hang_up: Callable[[str], None],
                 silence: float, tick: Callable[[], None]):
        self._send, self._hang_up, self._silence, self._tick = send, hang_up, silence, tick
        self._seats: dict[str, Seat] = {}
        self._wake = Condition()
        self._due = float("inf")
        self._thread: Thread | None = None
        self._closed = False

    def seat(self, seat: Seat) -> None:
        """From now on this client is kept up to date, from the first piece on."""
        if seat.wire:
            seat.wire.watch()
        with self._wake:
            self._seats[seat.client] = seat
        self.news()

    def leave(self, client: str) -> None:
        with self._wake:
            self._seats.pop(client, None)

    def news(self, within: float = 0.0) -> None:
        """Something is to be told, now or within so many seconds."""
        with self._wake:
            self._due = min(self._due, monotonic() + within)
            if self._thread is None and not self._closed:
                self._thread = Thread(target=self._serve, name="rooms", daemon=True)
                self._thread.start()
            self._wake.notify()

    def close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify()

    def _serve(self) -> None:
        """Until it is closed. That a room cannot be looked after must not end all others."""
        tick = again = monotonic() + TICK
        last = float("-inf")
        while True:
            with self._wake:
                while not self._closed and (
                        left := min(max(self._due, last + PACE), tick, again) - monotonic()) > 0:
                    self._wake.wait(left)
                if self._closed:
                    return
                self._due, last = float("inf"), monotonic()
                seats = list(self._seats.values())
            again = float("inf")
            for seat in seats:
                with _logged("a viewer could not be told"):
                    if not self._up_to_date(seat):
                        again = monotonic() + AGAIN
            if monotonic() >= tick:
                tick = monotonic() + TICK
                with _logged("a room could not be looked after"):
                    self._tick()

    def _up_to_date(self, seat: Seat) -> bool:
        """Whether nothing is left to be done for this one."""
        if seat.wire is None:
            messages, version = seat.stage.since(seat.version)
            for event, fields in ([seat.greeting()] if seat.greeting else []) + messages:
                self._send(seat.client, event, fields)
            seat.greeting, seat.version = None, version
            return True
        data, version = seat.stage.frames_since(seat.version)
        if seat.greeting:
            data = framed(*seat.greeting()) + data
        if not data and seat.wire.passed_on:
            return True
        if seat.wire.pass_on(data):
            seat.greeting, seat.version, seat.since = None, version, monotonic()
            return seat.wire.passed_on
        if monotonic() - max(seat.since, seat.wire.moved) > self._silence:
            log.warning("somebody who watches a room reads nothing; the connection is ended")
            self.leave(seat.client)
            self._hang_up(seat.client)
        return False


@contextmanager
def _logged(words: str) -> Iterator[None]:
    try:
        yield
    except Exception:
        log.exception(words)
