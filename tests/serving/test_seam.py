"""What the old seam hid: visitors who never leave, wishes that cross, loads that wait for each other."""
from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np
import pytest
import toy_room
from flask import Flask
from stand_in import Client, colour, engine_of, until

from explainers import Look
from models.base import squeeze
from serving import messages
from serving.engine import Command, Figures, Hear
from serving.events import Live, attach
from serving.settings import Settings

LABELS = {"labels": {0: "red"}, "offers": ["gradient"], "lacking": {}}


class Patient:
    """An engine that brings a model when the test says so, and never works."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Hear]] = []
        self.here: set[str] = {"toy"}
        self.left: list[str] = []

    def join(self, client: str) -> None: ...

    def submit(self, client: str, id: Hashable, command: Command, hear: Hear) -> None: ...

    def stop(self, client: str, id: Hashable = None) -> None: ...

    def leave(self, client: str) -> None:
        self.left.append(client)

    def describe(self, model: str) -> dict[str, Any] | None:
        return LABELS if model in self.here else None

    def progress(self, client: str, model: str, hear: Hear) -> None:
        self.asked.append((model, hear))

    def figures(self) -> Figures:
        return Figures({})

    def close(self) -> None: ...

    def bring(self, model: str) -> None:
        """As the loader's thread does it: everybody who asked hears of it."""
        self.here.add(model)
        for _, hear in [a for a in self.asked if a[0] == model]:
            hear("here", LABELS)


@pytest.fixture
def patient(toys: None) -> Iterator[tuple[Live, Patient]]:
    app, engine = Flask("seewhy-test"), Patient()
    attach(app, Settings(), engine)
    live: Live = app.extensions["live"]
    yield live, engine
    live.close()


def configured(client: Client) -> list[str]:
    return [ready["configured"]["model"] for ready in client.all("ready")]


def test_a_visitor_who_kept_no_picture_leaves_too(live: Live) -> None:
    stays = Client(live).here()
    for _ in range(20):
        visitor = Client(live).here()
        visitor.frame(colour("red"))
        visitor.leave()
    assert engine_of(live).waiting()["clients"] == 1 and len(live.sessions) == 1
    assert stays.frame(colour("green"))["classes"]


def test_the_newest_wish_wins_whichever_model_lands_first(patient: tuple[Live, Patient]) -> None:
    live, engine = patient
    client = Client(live)
    client.emit("configure", {"model": "toy-slow"})
    client.emit("configure", {"model": "toy-broken"})
    engine.bring("toy-broken")
    engine.bring("toy-slow")
    assert configured(client) == ["toy", "toy-broken"]


def test_choosing_another_model_in_the_moment_the_first_lands_is_not_lost(
        patient: tuple[Live, Patient], monkeypatch: pytest.MonkeyPatch) -> None:
    """A lands on the loader's thread, and just then, in the middle of it, B is chosen."""
    live, engine = patient
    client = Client(live)
    session = next(iter(live.sessions.values()))
    client.emit("configure", {"model": "toy-slow"})
    landing, chosen = threading.Event(), threading.Event()
    settle = session.settle

    def slowly(version: int, came: bool) -> bool:
        landing.set()
        chosen.wait(0.3)                       # the wish cannot get in between here, so this runs out
        return settle(version, came)

    monkeypatch.setattr(session, "settle", slowly)
    loader = threading.Thread(target=engine.bring, args=("toy-slow",))
    loader.start()
    assert landing.wait(10)
    client.emit("configure", {"model": "toy-broken"})
    chosen.set()
    loader.join(10)
    engine.bring("toy-broken")
    assert configured(client)[-1] == session.wish.model == "toy-broken"
    assert session.newest is session.wish


def test_a_model_that_does_not_come_does_not_undo_a_newer_wish(patient: tuple[Live, Patient]) -> None:
    live, engine = patient
    client = Client(live)
    client.emit("configure", {"model": "toy-slow"})
    client.emit("configure", {"model": "toy-broken"})
    slow = next(hear for model, hear in engine.asked if model == "toy-slow")
    slow("error", {"code": "offline", "message": "nothing answers"})
    engine.bring("toy-broken")
    assert configured(client) == ["toy", "toy-broken"] and not client.all("error")


def test_one_model_being_fetched_keeps_no_other_waiting(live: Live) -> None:
    one, two = Client(live).here(), Client(live).here()
    one.emit("configure", {"model": "toy-slow"})
    one.one("progress", what="fetch")
    two.emit("configure", {"model": "toy-broken"})
    two.one("ready", labels={"toy-broken": {"0": "red", "1": "green", "2": "blue"}})
    assert not toy_room.GATE.is_set() and two.frame(colour("red"))["model"] == "toy-broken"


def test_who_left_while_a_model_came_is_forgotten(live: Live) -> None:
    import gc
    import weakref

    visitor = Client(live).here()
    session = weakref.ref(live.sessions[next(iter(live.sessions))])
    visitor.emit("configure", {"model": "toy-slow"})
    visitor.leave()
    toy_room.GATE.set()

    def gone() -> bool:
        gc.collect()
        return session() is None

    until(gone, "the session to be freed")


def squeezed_look(width: int, height: int) -> Look:
    look = object.__new__(Look)
    look.frame = np.zeros((height, width, 3), np.uint8)
    look.canvas = squeeze(look.frame, 224)
    return look


@pytest.mark.parametrize(("width", "height", "size"), [(1280, 720, (224, 398)), (300, 600, (448, 224)),
                                                       (224, 224, (224, 224))])
def test_pictures_of_a_squeezed_canvas_are_shown_as_wide_as_the_frame(width: int, height: int,
                                                                       size: tuple[int, int]) -> None:
    """An attack's perturbation and noise stand beside pictures in the frame's proportions."""
    look = squeezed_look(width, height)
    tile = np.linspace(0, 1, 224 * 224 * 3).reshape(224, 224, 3)
    shown = messages.unsqueezed(tile, look)
    assert shown.shape[:2] == size and shown.min() >= 0 and shown.max() <= 1
    assert shown.shape[1] / shown.shape[0] == pytest.approx(width / height, rel=0.01)


def test_other_pictures_stay_as_they_are() -> None:
    look = squeezed_look(1280, 720)
    frame = np.zeros((720, 1280, 3), np.uint8)
    assert messages.unsqueezed(frame, look) is frame
