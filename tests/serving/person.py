"""Somebody at a page, as tests of rooms need one."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stand_in import colour, jpeg, until
from test_wire import Caller


class Person(Caller):
    """Somebody at a page."""

    def say(self, event: str, **fields: Any) -> None:
        self.io.emit(event, fields)

    def leave(self) -> None:
        self.io.disconnect()

    def last(self, event: str, true: Callable[[dict[str, Any]], Any] = bool) -> dict[str, Any]:
        """The newest such message once it is as wished, waited for."""
        def newest() -> Any:
            found = self.all(event)
            return found[-1] if found and true(found[-1]) else None

        found: dict[str, Any] = until(newest, f"{event}; heard were {[e for e, _ in self.heard]}")
        return found

    def show(self, seq: int, name: str = "red", **fields: Any) -> dict[str, Any]:
        """Show a picture, and hear what it is."""
        self.say("frame", seq=seq, jpeg=jpeg(colour(name)), **fields)
        return self.one("result", "error", "dropped", seq=seq)

    def watch(self, code: str, **fields: Any) -> dict[str, Any]:
        self.say("join", code=code, **fields)
        return self.one("joined", "error")


def code_of(presenter: Person) -> str:
    return str(presenter.one("room")["code"])


def live_maps(presenter: Person) -> None:
    presenter.say("configure", method="grad_cam")
    presenter.last("ready", lambda ready: ready["configured"]["method"] == "grad_cam")
