"""The questions of a room: what several viewers ask alike is asked once, and all of them hear the answer."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable
from dataclasses import asdict, dataclass, field
from functools import partial
from threading import RLock
from typing import Any

from serving.engine import Command, Engine, Full, Hear

OF_ONE = 4                                     # questions that one viewer may have under way

Asker = tuple[str, Hashable]


@dataclass
class UnderWay:
    """One that is under way: who asked it, and what was answered last."""

    askers: dict[Asker, Hear] = field(default_factory=dict)
    last: tuple[str, dict[str, Any]] | None = None


class Shared:
    """Stands before the engine as one of its clients: a class together takes the turns of one page."""

    def __init__(self, engine: Engine, name: str):
        self._engine, self._name, self._lock = engine, name, RLock()
        self._under_way: dict[str, UnderWay] = {}
        engine.join(name)

    def submit(self, client: str, id: Hashable, command: Command, hear: Hear) -> None:
        """As Engine.submit; Full when this viewer, or all of them together, have too much under way."""
        key = _key(command)
        with self._lock:
            self.stop(client, id)
            if sum(who == client for q in self._under_way.values() for who, _ in q.askers) >= OF_ONE:
                raise Full
            known = self._under_way.get(key)
            if known is None:
                # Under its content's name it replaces nothing, for the same content is never asked twice.
                self._engine.submit(self._name, key, command, partial(self._heard, key))
                known = self._under_way[key] = UnderWay()
            known.askers[client, id] = hear
            last = known.last
        if last:
            hear(*last)

    def stop(self, client: str, id: Hashable = None) -> None:
        """This viewer does not want to hear it any more; who is the last one ends it."""
        with self._lock:
            for key, question in tuple(self._under_way.items()):
                for asker in [a for a in question.askers if a[0] == client and id in (None, a[1])]:
                    del question.askers[asker]
                if not question.askers:
                    del self._under_way[key]
                    self._engine.stop(self._name, key)

    def close(self) -> None:
        """The room is closed."""
        with self._lock:
            self._under_way.clear()
        self._engine.leave(self._name)

    def _heard(self, key: str, event: str, fields: dict[str, Any]) -> None:
        with self._lock:
            question = self._under_way.get(key)
            if question is None:
                return
            question.last = event, fields
            if event != "explanation" or fields.get("done"):
                del self._under_way[key]
            askers = list(question.askers.values())
        for hear in askers:
            hear(event, fields)


def _key(command: Command) -> str:
    """The name of a command's content."""
    what = {name: value for name, value in asdict(command).items() if name != "picture"}
    return hashlib.sha256(command.picture + json.dumps(
        [type(command).__name__, what], sort_keys=True, default=repr).encode()).hexdigest()
