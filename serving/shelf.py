"""The models of one process: brought when they are asked for, put away when they weigh too much together."""
from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from threading import Lock, Thread
from time import monotonic, sleep
from typing import Any

import models
from models import compiled, store
from models.base import Model, Net

PROGRESS_EVERY = 0.1                           # seconds between two messages about one download
FIRST = 1.0                                    # seconds that a new model has for its first answers

Tell = Callable[[dict[str, Any]], None]
"""Called with the fields of a `progress` message."""
Arrived = Callable[["Future[Model]"], None]
"""Called once, when the model is here or will not come."""


class Shelf:
    """Each model in a thread of its own while it comes: one that is fetched keeps no other waiting."""

    def __init__(self, own: tuple[models.Own, ...], most: int, compiling: bool,
                 gone: Callable[[Model], None]):
        self._own, self._most, self._compiling, self._gone = own, most, compiling, gone
        self.catalog = models.catalog(own)
        self._models: OrderedDict[str, Future[Model]] = OrderedDict()
        self._listeners: dict[str, list[tuple[Tell, Arrived]]] = {}
        self._users: Counter[str] = Counter()
        self._lock = Lock()

    def here(self, name: str) -> Model | None:
        """The model if it is here."""
        future = self._models.get(name)
        return future.result() if future and future.done() and not future.exception() else None

    def states(self) -> tuple[dict[str, str], tuple[str, ...], dict[str, BaseException]]:
        """The models that are here with what runs each, those on their way, and why others did not come."""
        with self._lock:
            asked = tuple(self._models.items())
        ended = [(name, future) for name, future in asked if future.done()]
        problems = {name: problem for name, future in ended if (problem := future.exception())}
        here = {name: compiled.state_of(future.result()) or "torch" for name, future in ended
                if name not in problems}
        return here, tuple(name for name, future in asked if (name, future) not in ended), problems

    def ask(self, name: str, again: bool = True) -> Future[Model]:
        """The model, now or later; what failed is tried `again`."""
        return self._asked(name, again)

    def watch(self, name: str, tell: Tell, arrived: Arrived) -> None:
        """Ask, and hear how far it is and when it is here.

        A callback of the future itself would stay with it, and keep a client that left as long as the model.
        """
        future = self._asked(name, True, (tell, arrived))
        if future.done():
            self._arrive(name, future)

    def _asked(self, name: str, again: bool, listener: tuple[Tell, Arrived] | None = None) -> Future[Model]:
        with self._lock:
            future = self._models.get(name)
            load = future is None or (again and future.done() and future.exception() is not None)
            if future is None or load:
                future = self._models[name] = Future()
            self._models.move_to_end(name)
            if listener:
                self._listeners.setdefault(name, []).append(listener)
        if load:
            Thread(target=self._load, args=(name, future), name=f"loading {name}", daemon=True).start()
        return future

    def _arrive(self, name: str, future: Future[Model]) -> None:
        """Tell everybody who waits, once."""
        with self._lock:
            listeners = self._listeners.pop(name, [])
        for _, arrived in listeners:
            arrived(future)

    @contextmanager
    def using(self, name: str) -> Iterator[Model]:
        """The model, waited for, and not put away while somebody uses it."""
        future = self.ask(name)
        with self._lock:
            self._users[name] += 1
        try:
            yield future.result()
        finally:
            with self._lock:
                self._users[name] -= 1

    def _load(self, name: str, future: Future[Model]) -> None:
        """In its own thread: fetch and load one model, and make it faster once it is in use."""
        tell, last = partial(self._tell, name), 0.0

        def progress(what: str, done: int, total: int) -> None:
            nonlocal last
            if done >= total or monotonic() - last > PROGRESS_EVERY:
                last = monotonic()
                tell("fetch" if total else "load", done, total, what)

        try:
            title = self.catalog[name].title
            tell("load", 0, 1, f"Loading {title}")
            model = models.load(name, progress, *([self._own] if self._own else []))
            tell("load", 1, 1, f"{title} is here")
        except BaseException as problem:
            future.set_exception(problem)
            self._arrive(name, future)
            return
        future.set_result(model)
        self._make_room(name)
        self._arrive(name, future)
        if self._compiling:
            sleep(FIRST)
            compiled.compile_model(model)
            if state := compiled.state_of(model):
                store.note(name, state)
            self._make_room()                  # it weighs more now

    def _make_room(self, newest: str = "") -> None:
        """Put away what was used longest ago and is used by nobody, until the rest is light enough.

        The newest one stays, or else the one that was asked for last.
        """
        gone = []
        with self._lock:
            newest = newest or next(reversed(self._models), "")
            here = {name: model for name in self._models if (model := self.here(name)) is not None}
            total = sum(map(weight, here.values()))
            for name, model in here.items():
                if total <= self._most:
                    break
                if name != newest and not self._users[name]:
                    total -= weight(model)
                    del self._models[name]
                    gone.append(model)
        for model in gone:
            self._gone(model)

    def _tell(self, name: str, what: str, done: int, total: int, text: str) -> None:
        if what == "fetch":
            text = f"Fetching {text}: {done / 1e6:.1f} of {total / 1e6:.1f} MB"
        with self._lock:
            listeners = tuple(self._listeners.get(name, ()))
        for listener, _ in listeners:
            listener({"what": what, "name": name, "done": done, "total": total, "text": text})


def weight(model: Model) -> int:
    """Bytes of a model's numbers; where there is no torch net to count in, those of its files."""
    if isinstance(model, Net):
        held = (*model.net.parameters(), *model.net.buffers())
        twice = sum(part.bytes for part in compiled.parts_of(model))
        return sum(tensor.nbytes for tensor in held) + twice
    return round(model.info.megabytes * 1e6)
