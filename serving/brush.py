"""Fills holes for all clients in pieces: a slow fill of one keeps another waiting for one piece at most."""
from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from threading import Condition, Thread
from typing import Any

Work = Iterator[Any]


class Brush:
    """A few threads that go round over clients; of one client's work one piece runs at a time."""

    def __init__(self, threads: int = 2):
        self._waiting: OrderedDict[str, deque[tuple[Future[Any], Work]]] = OrderedDict()
        self._busy: set[str] = set()
        self._wake, self._closed = Condition(), False
        for number in range(threads):
            Thread(target=self._paint, name=f"brush {number}", daemon=True).start()

    def submit(self, client: str, work: Work) -> Future[Any]:
        """What the work yields last. Who cancels it stops it after the piece that runs."""
        future: Future[Any] = Future()
        with self._wake:
            self._waiting.setdefault(client, deque()).append((future, work))
            self._wake.notify()
        return future

    def close(self) -> None:
        """Take no further piece up."""
        with self._wake:
            self._closed = True
            for works in self._waiting.values():
                for future, _ in works:
                    future.cancel()
            self._wake.notify_all()

    def _paint(self) -> None:
        while True:
            with self._wake:
                while not self._closed and (client := self._next()) is None:
                    self._wake.wait()
                if self._closed:
                    return
                assert client is not None
                self._busy.add(client)
                self._waiting.move_to_end(client)
                future, work = self._waiting[client][0]
            ended = self._piece(future, work)
            with self._wake:
                self._busy.discard(client)
                if ended:
                    self._waiting[client].popleft()
                    if not self._waiting[client]:
                        del self._waiting[client]
                self._wake.notify()
            del future, work                   # else a picture of a client that left would live on here

    def _next(self) -> str | None:
        return next((client for client in self._waiting if client not in self._busy), None)

    @staticmethod
    def _piece(future: Future[Any], work: Work) -> bool:
        """Do one piece; whether it was the last."""
        if future.cancelled():
            return True
        try:
            found = next(work)
            if found is not None:
                with suppress(InvalidStateError):        # cancelled in this very moment
                    future.set_result(found)
        except BaseException as problem:
            with suppress(InvalidStateError):
                future.set_exception(problem)
            return True
        return found is not None
