"""The seam between people and work: what may be asked for, as frozen data that pickles, and who does it.

Nothing else crosses it: no session, no decoded picture, no look, no model. So the work may be done in this
process (local.py) or in others; the answers are messages, (event, fields) in the shapes of PROTOCOL.md.
"""
from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

from explainers import Question

Message = tuple[str, dict[str, Any]]
Hear = Callable[[str, dict[str, Any]], None]
"""What is called with each message of a command, on the engine's own thread."""


@dataclass(frozen=True)
class Wish:
    """What is to be done with a picture: names and numbers."""

    task: str
    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    method: str | None = None                  # of a See: what follows the result, live
    params: dict[str, Any] = field(default_factory=dict)
    target: Question = Question()

    def describe(self) -> dict[str, Any]:
        return {"task": self.task, "model": self.model, "settings": self.settings, "method": self.method,
                "params": self.params, "target": self.target.text or None}


@dataclass(frozen=True)
class Edits:
    """What was erased of a picture, and what stands there instead."""

    mask: bytes                                # a PNG, white where it is erased
    fill: str
    params: dict[str, Any] = field(default_factory=dict)
    preview: bool = False
    drawn_on: str | None = None                # the fingerprint of its picture, when that is known


@dataclass(frozen=True)
class See:
    """Look at a picture; the wish's live method, if there is one, explains what was seen."""

    picture: bytes                             # a JPEG; on the command line any file that can be decoded
    wish: Wish
    keep: bool = False                         # it will be asked about again: the look is worth remembering


@dataclass(frozen=True)
class Explain:
    """Explain a picture, or its edited side; or check the explanation that is named."""

    picture: bytes
    wish: Wish
    edits: Edits | None = None
    check: str | None = None                   # curves or sanity


@dataclass(frozen=True)
class Edit:
    """Erase and look again; without edits, look at the picture as it was."""

    picture: bytes
    wish: Wish
    edits: Edits | None = None


Command = See | Explain | Edit


@dataclass(frozen=True)
class Figures:
    """What an engine holds and what waits for it, for whoever runs the server."""

    models: dict[str, str]                     # those that are here, and what runs each
    coming: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)       # those that did not come, and why
    frames: int = 0                            # that wait for their turn ...
    oldest: float = 0.0                        # ... and the seconds that one of them has waited longest
    requests: int = 0                          # under way
    cache_bytes: int = 0
    hits: int = 0
    misses: int = 0


class Full(Exception):
    """A client has too many requests under way."""


class Engine(Protocol):
    """Who does the work, for all clients of one server; every method returns at once."""

    def join(self, client: str) -> None:
        """From now on this client is served."""

    def submit(self, client: str, id: Hashable, command: Command, hear: Hear) -> None:
        """Have it done and hear the messages; Full when this client has too much under way.

        Of a client's pictures to See only the newest waits, the one it replaces hears `dropped`; every See
        that is not stopped is answered by one of `result`, `error`, `dropped`. An Explain or Edit replaces
        the one of the same id.
        """

    def stop(self, client: str, id: Hashable = None) -> None:
        """Stop one command, or all that are not a See; what it was about to say is not said."""

    def leave(self, client: str) -> None:
        """Forget a client and all it waits for."""

    def describe(self, model: str) -> dict[str, Any] | None:
        """What is known of a model once it is here (labels, offers, lacking), or None."""

    def progress(self, client: str, model: str, hear: Hear) -> None:
        """Bring a model; hear how far it is (`progress`), then `here` with its description, or `error`."""

    def figures(self) -> Figures:
        """What it holds, and what waits."""

    def close(self) -> None:
        """Answer what waits, and end, within four seconds whatever is under way."""
