"""Who comes while the libraries are still being imported waits here, and is told what for."""
from __future__ import annotations

import gc
from threading import Event, Thread
from typing import TYPE_CHECKING

from flask import Flask

import models
from serving import wire
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.events import Live

OPENING = {"what": "load", "name": "libraries", "done": 0, "total": 1, "text": "Starting PyTorch"}


class Door:
    """The live channel of an app, there from the first moment; behind it Live, a few seconds later."""

    def __init__(self, app: Flask, settings: Settings):
        self._app, self._settings = app, settings
        self._io = wire.connected(app, settings)
        self._open = Event()
        self._live: Live | None = None
        self._problem: BaseException | None = None
        wire.listen(self._io, self._found)

    def open(self) -> None:
        """Import what looks, in a thread of its own, and bring the first model before anybody asks for it."""
        Thread(target=self._import, name="opening", daemon=True).start()

    def close(self) -> None:
        if self._live:
            self._live.close()

    def _import(self) -> None:
        try:
            from serving.events import Live
            from serving.local import LocalEngine

            engine = LocalEngine(self._settings)
            engine.progress("", models.default(self._settings.task), lambda event, fields: None)
            self._live = self._app.extensions["live"] = Live(self._app, self._settings, self._io, engine)
        except BaseException as problem:
            self._problem = problem
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
            raise ConnectionRefusedError(f"the server could not start: {self._problem}")
        return self._live
