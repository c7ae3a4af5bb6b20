"""Who comes while the libraries are still being imported waits here, and is told what for."""
from __future__ import annotations

import gc
import sys
from contextlib import suppress
from threading import Event, Thread
from typing import TYPE_CHECKING

from flask import Flask

import models
from serving import wire
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.events import Live

ARENAS = -8                                    # M_ARENA_MAX of glibc's malloc.h
OPENING = {"what": "load", "name": "libraries", "done": 0, "total": 1, "text": "Starting PyTorch"}


def two_arenas() -> None:
    """Let this process's threads share what they have freed; with all three tasks used that is 40 MB less.

    glibc gives every thread a store of its own, and what one freed no other may have.
    """
    if sys.platform == "linux":
        import ctypes

        with suppress(AttributeError):         # another library than glibc has none to be told of
            ctypes.CDLL(None).mallopt(ARENAS, 2)


class Door:
    """The live channel of an app, there from the first moment; behind it Live, a few seconds later."""

    def __init__(self, app: Flask, settings: Settings):
        self._app, self._settings = app, settings
        self._io = wire.connected(app, settings)
        self._open = Event()
        self._live: Live | None = None
        self.problem: BaseException | None = None    # why the libraries could not be imported
        app.extensions["door"] = self
        wire.listen(self._io, self._found)

    def open(self) -> None:
        """Import what looks, in a thread of its own, and bring the first model before anybody asks for it."""
        Thread(target=self._import, name="opening", daemon=True).start()

    def close(self) -> None:
        if self._live:
            self._live.close()
        else:
            self._io.emit("server_closing", wire.CLOSING)
            wire.drain(self._io, 0.5)

    def _import(self) -> None:
        try:
            from serving.events import Live
            from serving.local import LocalEngine

            engine = LocalEngine(self._settings)
            engine.progress("", models.default(self._settings.task), lambda event, fields: None)
            self._live = self._app.extensions["live"] = Live(self._app, self._settings, self._io, engine)
        except BaseException as problem:
            self.problem = problem
            raise
        finally:
            gc.freeze()                        # what was imported stays: nobody need look through it again
            gc.enable()
            self._open.set()

    def _found(self, client: str) -> Live:
        if not self._open.is_set():
            self._io.emit("progress", OPENING, to=client)
            self._open.wait()
        if self._live is None:
            raise ConnectionRefusedError(f"the server could not start: {self.problem}")
        return self._live
