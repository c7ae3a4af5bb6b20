"""A server with toy models, clients without a network, and a real server on a free port."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import toy_room
from person import Person, code_of
from served import put_online, served
from stand_in import Client

import models
from explainers.base import METHODS, Explanation, method
from serving.events import Live
from serving.settings import Settings


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The toy room alone, and three methods made for these tests."""
    monkeypatch.setattr(models, "ROOMS", ("toy_room",))
    monkeypatch.setattr(models, "default", lambda task: {"classify": "toy", "detect": "toy-boxes"}[task])
    toy_room.GATE.clear()
    toy_room.LOADS.clear()
    before = dict(METHODS)

    @method("Counting", group="checks", shows="Ten steps.", cannot="Anything.", tasks=("classify",),
            steps=(10, 1, 1000))
    def toy_counting(look: Any, target: Any, steps: int) -> Iterator[Explanation]:
        for step in range(1, steps + 1):
            time.sleep(0.01)
            yield Explanation(np.full(look.canvas.size, step, np.float32), progress=step / steps)

    @method("Failing", group="checks", shows="One step.", cannot="Go on.", tasks=("classify",))
    def toy_failing(look: Any, target: Any) -> Iterator[Explanation]:
        yield Explanation(np.ones(look.canvas.size, np.float32), progress=0.5)
        raise ZeroDivisionError("in the middle")

    @method("Odd numbers", group="checks", shows="What JSON cannot say.", cannot="Be drawn.",
            tasks=("classify",), live=True)
    def toy_odd(look: Any, target: Any) -> Explanation:
        heat = np.zeros(look.canvas.size, np.float32)
        heat[3, 5] = 2.0
        numbers: Any = {"nan": float("nan"), "many": np.float32(2.5)}
        return Explanation(heat, numbers=numbers,
                           image=np.ones((16, 16, 3)), maps={"other": heat * 2},
                           curves={"up": [0.0, float("inf")]}, prediction=look.prediction)

    yield
    toy_room.GATE.set()
    for thread in threading.enumerate():       # a model still on its way would be counted by the next test
        if thread.name.startswith("loading "):
            thread.join(10)
    METHODS.clear()
    METHODS.update(before)


@pytest.fixture
def live(toys: None) -> Iterator[Live]:
    """A server without a network."""
    yield from served(Settings(port=4200))


@pytest.fixture
def client(live: Live) -> Client:
    return Client(live).here()


@pytest.fixture
def online(toys: None) -> Iterator[tuple[Live, str]]:
    """A real server on a free port of this machine."""
    yield from put_online()


@pytest.fixture
def presenter(online: tuple[Live, str]) -> Iterator[Person]:
    """One whose room is open, and whose model is here."""
    live, url = online
    person = Person(url)
    person.one("ready")
    person.show(1000)
    person.say("present")
    person.one("room")
    yield person
    person.leave()


@pytest.fixture
def class_of(online: tuple[Live, str], presenter: Person) -> Iterator[Callable[[int], list[Person]]]:
    """So many viewers, all of whom have joined."""
    came: list[Person] = []

    def come(count: int) -> list[Person]:
        mine = [Person(online[1]) for _ in range(count)]
        for person in mine:
            person.say("join", code=code_of(presenter))
        for person in mine:
            assert person.one("joined", "error")["ready"]["configured"]["task"] == "classify"
        came.extend(mine)
        return mine

    yield come
    for person in came:
        person.leave()
