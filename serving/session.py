"""What is known of the server (Settings) and of one client (Session): its wishes and kept pictures."""
from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from explainers import Explanation, Look
from models.base import BadInput, Model, checked
from serving.edits import fingerprint

LOOKS_PER_PICTURE = 3                          # a look at 640 px holds some ten megabytes


@dataclass(frozen=True)
class Settings:
    """How this server runs. Frozen: whoever wants another makes another."""

    host: str = "127.0.0.1"
    port: int = 4200
    origins: tuple[str, ...] = ()              # allowed besides localhost, as http(s)://name:port
    task: str = "classify"
    captioner: Path | None = None              # the user's own captioner weights ...
    vocabulary: Path | None = None             # ... and its words
    trusted_model: Path | None = None          # a .pt file that may run code
    jpeg_bytes: int = 300_000                  # the live channel
    jpeg_pixels: int = 2**21                   # two megapixels; Full HD still fits
    upload_bytes: int = 20_000_000             # a file before the browser or command line scales it down
    upload_pixels: int = 64_000_000
    kept: int = 8                              # frozen pictures a client may come back to
    clients: int = 64

    @property
    def allowed_origins(self) -> list[str]:
        """Where the page may come from: this machine under its usual names, and what was added."""
        names = ["localhost", "127.0.0.1", "[::1]"]
        if self.host not in ("", "0.0.0.0", "::", "::1", *names):
            names.append(self.host)
        return [f"http://{name}:{self.port}" for name in names] + list(self.origins)

    @property
    def limits(self) -> dict[str, int]:
        """What the page must keep to."""
        return {"jpeg_bytes": self.jpeg_bytes, "jpeg_pixels": self.jpeg_pixels,
                "upload_bytes": self.upload_bytes, "kept": self.kept}


@dataclass(frozen=True)
class Wish:
    """What a client wants done with its frames."""

    task: str
    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    method: str | None = None                  # the live explanation
    params: dict[str, Any] = field(default_factory=dict)
    target: str | None = None

    def describe(self) -> dict[str, Any]:
        return {"task": self.task, "model": self.model, "settings": self.settings, "method": self.method,
                "params": self.params, "target": self.target}


class Picture:
    """One kept picture, the looks taken at it, its finished explanations, and its edited twin."""

    def __init__(self, frame: np.ndarray):
        self.frame = frame
        self.edited: Picture | None = None
        self.fingerprint = fingerprint(frame)
        self._looks: OrderedDict[str, Look] = OrderedDict()
        self._explained: OrderedDict[str, Explanation] = OrderedDict()

    def look(self, model: Model, settings: dict[str, Any]) -> Look:
        """The one look a model takes at this picture; only the thread that owns the models asks."""
        key = _key(model, checked(model.info.settings, settings, model.info.title))
        if key not in self._looks:
            self.remember(Look(model, self.frame, settings))
        self._looks.move_to_end(key)
        return self._looks[key]

    def remember(self, look: Look) -> None:
        """A look that was taken already, so that explaining the picture need not look again."""
        self._looks[_key(look.model, look.settings)] = look
        while len(self._looks) > LOOKS_PER_PICTURE:
            self._looks.popitem(last=False)

    def explained(self, key: str) -> Explanation | None:
        """A finished explanation, for the checks that need one."""
        return self._explained.get(key)

    def keep_explanation(self, key: str, explanation: Explanation) -> None:
        self._explained[key] = explanation
        while len(self._explained) > LOOKS_PER_PICTURE:
            self._explained.popitem(last=False)


class Session:
    """One client. Its pictures live here, in memory, and nowhere else; they go when it goes."""

    def __init__(self, client: str, wish: Wish, kept: int):
        self.client, self.wish = client, wish
        self.pending: Wish | None = None       # wished for, its model still on the way
        self.complained: set[str] = set()      # each complaint of the live explanation is made once
        self._limit = kept
        self._pictures: OrderedDict[int, Picture] = OrderedDict()
        self._lock = Lock()

    def keep(self, seq: int, frame: np.ndarray) -> Picture:
        """Hold a picture by its number; the oldest beyond the limit is forgotten."""
        with self._lock:
            self._pictures.pop(seq, None)
            picture = self._pictures[seq] = Picture(frame)
            while len(self._pictures) > self._limit:
                self._pictures.popitem(last=False)
            return picture

    def picture(self, seq: Any) -> Picture:
        """The kept picture of that number, or a sentence that says which are kept."""
        with self._lock:
            if isinstance(seq, int) and seq in self._pictures:
                return self._pictures[seq]
            have = ", ".join(map(str, self._pictures)) or "none"
        raise Gone(f"picture {_short(seq)} is no longer kept (kept: {have}); "
                   "freeze or upload it again")

    def configure(self, wish: Wish) -> None:
        """From now on, frames are looked at like this."""
        self.wish, self.pending = wish, None
        self.complained.clear()

    def forget(self) -> None:
        with self._lock:
            self._pictures.clear()

    def __len__(self) -> int:
        return len(self._pictures)


def _key(model: Model, settings: dict[str, Any]) -> str:
    return f"{model.info.name} {json.dumps(settings, sort_keys=True)}"


class Gone(BadInput):
    """A picture that was asked for is not here any more."""

    code = "gone"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
