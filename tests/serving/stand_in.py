"""What stands in for the page in these tests: pictures, and a client that remembers what it heard."""
from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from serving.events import Live
from serving.local import LocalEngine

ANSWERS = ("result", "error", "dropped")


def colour(name: str, height: int = 48, width: int = 64) -> np.ndarray:
    """A picture of one colour with a little texture, so that two are never the same by chance."""
    frame = np.random.default_rng(len(name)).integers(0, 40, (height, width, 3), np.uint8)
    frame[..., ["red", "green", "blue"].index(name)] += 200
    return frame


def jpeg(frame: np.ndarray, quality: int = 90) -> bytes:
    return cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def png(mask: np.ndarray) -> bytes:
    return cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes()


def until(true: Callable[[], Any], what: str, seconds: float = 10) -> Any:
    """What `true` returns as soon as it is something; a sentence if it stays nothing."""
    end = time.monotonic() + seconds
    while not (value := true()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.005)
    return value


def engine_of(live: Live) -> LocalEngine:
    """The engine of a server that works in this process."""
    assert isinstance(live.engine, LocalEngine)
    return live.engine


class Client:
    """A client without a network, that remembers what it heard."""

    def __init__(self, live: Live):
        self.live, self.heard = live, []  # type: Live, list[tuple[str, dict[str, Any]]]
        self._io = live.app.extensions["socketio"].test_client(live.app)
        self.number = itertools.count(1)

    def emit(self, event: str, *arguments: Any) -> None:
        self._io.emit(event, *arguments)

    def all(self, *events: str, **fields: Any) -> list[dict[str, Any]]:
        """Everything heard so far of these events, with these fields."""
        if self._io.is_connected():
            self.heard += [(m["name"], m["args"][0]) for m in self._io.get_received()]
        return [d for e, d in tuple(self.heard)
                if e in events and all(d.get(k) == v for k, v in fields.items())]

    def one(self, *events: str, **fields: Any) -> dict[str, Any]:
        """The first such message, waited for."""
        return until(lambda: self.all(*events, **fields), f"{' or '.join(events)} {fields}")[0]

    def frame(self, picture: np.ndarray | bytes, **fields: Any) -> dict[str, Any]:
        """Send one frame and wait for its answer."""
        seq = fields.pop("seq", None) or next(self.number)
        data = picture if isinstance(picture, bytes) else jpeg(picture)
        self.emit("frame", {"seq": seq, "jpeg": data, **fields})
        return self.one(*ANSWERS, seq=seq)

    def here(self) -> Client:
        """When the first model is here."""
        until(lambda: any(r["labels"] for r in self.all("ready")), "the first model")
        return self

    def leave(self) -> None:
        self._io.disconnect()
