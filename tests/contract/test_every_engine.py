"""What every engine owes the front: work.run's messages, an answer for every frame, silence after a stop."""
from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

import models
from explainers import METHODS, lacks, parse
from models.base import Model
from serving.engine import Command, Edit, Edits, Engine, Explain, Message, See, Wish
from serving.local import LocalEngine
from serving.settings import Settings
from serving.work import Work
from tests.contract.test_every_method_on_every_model import short

ENGINES: dict[str, Callable[[Settings], Engine]] = {"local": LocalEngine}
ASKED = {"classify": "class:281", "detect": "box:0", "caption": "word:1"}
FIRST = {task: models.default(task) for task in ASKED}
CASES = [(task, name) for task in FIRST for name, m in METHODS.items() if task in m.tasks]


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, lite0: Model, tiny: Model, captioner: Model) -> Iterator[Engine]:
    """Each engine, with the models that other tests loaded."""
    loaded = {m.info.name: m for m in (lite0, tiny, captioner)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "load", lambda name, progress: loaded[name])
        made = ENGINES[request.param](Settings(compiled=False))    # or a model would change in between
        made.join("me")
        yield made
        made.close()


@pytest.fixture(scope="module")
def plain(engine: Engine) -> Work:
    """The work itself, without an engine; it remembers nothing."""
    return Work(replace(Settings(), looks_mb=0, compiled=False))


@pytest.fixture(scope="module")
def bus(photographs: dict[str, np.ndarray]) -> bytes:
    return bytes(cv2.imencode(".jpg", photographs["bus"][200:801:2, :777:2, ::-1])[1])


def is_last(command: Command, event: str, fields: dict[str, Any]) -> bool:
    """Whether nothing comes after this message."""
    if isinstance(command, See):
        return event in ("error", "dropped", "explanation") or not fields.get("follows")
    return event in ("error", "result") or bool(fields.get("done"))


def asked(engine: Engine, id: Hashable, command: Command) -> list[Message]:
    """Everything an engine says of a command, to its end."""
    said: list[Message] = []
    over = threading.Event()

    def hear(event: str, fields: dict[str, Any]) -> None:
        said.append((event, fields))
        if is_last(command, event, fields):
            over.set()

    engine.submit("me", id, command, hear)
    assert over.wait(120), f"no end of {command.wish} after {[event for event, _ in said]}"
    return said


def untimed(value: Any) -> Any:
    """Messages without what a clock says; small differences of sums, where threads share them, are none."""
    if isinstance(value, dict):
        return {k: untimed(v) for k, v in value.items() if k != "ms"}
    if isinstance(value, float):
        return pytest.approx(value, rel=1e-4, abs=1e-5)
    if isinstance(value, bytes):
        return len(value)
    return [untimed(v) for v in value] if isinstance(value, list | tuple) else value


def wish_of(task: str, method: str | None = None) -> Wish:
    params = short(METHODS[method]) if method else {}
    return Wish(task, FIRST[task], {}, method, params, parse(ASKED[task] if method else None, task))


@pytest.mark.parametrize(("task", "method"), CASES)
def test_every_method_says_through_an_engine_what_the_work_says(
        engine: Engine, plain: Work, bus: bytes, task: str, method: str) -> None:
    command = Explain(bus, wish_of(task, method))
    far, near = asked(engine, method, command)[-1], list(plain.run(command))[-1]
    assert far[0] == near[0]
    if far[0] == "error":                      # the model does not offer what the method needs
        with plain.shelf.using(FIRST[task]) as model:
            assert far[1] == near[1] and far[1]["message"] == lacks(METHODS[method], model)
    else:
        same(near[1], far[1])


def same(near: dict[str, Any], far: dict[str, Any]) -> None:
    """The same explanation, as far as the machine's own sums are the same twice."""
    assert far.keys() == near.keys()
    for key in near.keys() - {"ms", "heat", "map_bytes", "images"}:
        assert far[key] == untimed(near[key]), key
    for key in ("heat", "map_bytes"):
        if key in near:
            a, b = (np.frombuffer(m[key], np.uint8).astype(int) for m in (near, far))
            assert len(a) == len(b) and np.abs(a - b).max(initial=0) <= 2, key
    assert far["images"].keys() == near["images"].keys()


@pytest.mark.parametrize("task", FIRST)
def test_a_live_frame_is_answered_and_then_explained(engine: Engine, bus: bytes, task: str) -> None:
    method = "odam" if task == "detect" else "grad_cam"
    said = asked(engine, ("frame", 1), See(bus, wish_of(task, method)))
    assert [event for event, _ in said] == ["result", "explanation"]
    assert said[0][1]["follows"] is True and "wait" in said[0][1]["ms"] and said[1][1]["done"]


def test_an_edit_and_a_broken_picture(engine: Engine, plain: Work, bus: bytes) -> None:
    hole = np.zeros((301, 389), np.uint8)
    hole[100:150, 100:150] = 255
    edits = Edits(bytes(cv2.imencode(".png", hole)[1]), "telea")
    command = Edit(bus, wish_of("classify"), edits)
    (event, said), = asked(engine, "edit", command)
    assert event == "result" and said["edited"] is True
    assert said["classes"] == list(plain.run(command))[-1][1]["classes"]
    (event, said), = asked(engine, ("frame", 2), See(bus[:500], wish_of("classify")))
    assert event == "error" and said["code"] == "not_jpeg"


def test_what_is_stopped_says_no_more_and_the_same_id_replaces(engine: Engine, bus: bytes) -> None:
    long = Explain(bus, Wish("classify", FIRST["classify"], {}, "rise", {"masks": 4000, "seed": 5}))
    heard: list[Message] = []
    begun = threading.Event()

    def hear(event: str, fields: dict[str, Any]) -> None:
        heard.append((event, fields))
        begun.set()

    engine.submit("me", "long", long, hear)
    assert begun.wait(30)
    quick = asked(engine, "long", Explain(bus, wish_of("classify", "saliency")))
    assert quick[-1][1]["method"] == "saliency"
    count = len(heard)
    asked(engine, "another", Explain(bus, wish_of("classify", "layer_cam")))
    assert len(heard) == count and not any(fields.get("done") for _, fields in heard)


def test_of_many_frames_each_is_answered_once(engine: Engine, bus: bytes) -> None:
    answers: dict[int, list[str]] = {n: [] for n in range(20)}
    over = threading.Event()

    def hear(n: int) -> Callable[[str, dict[str, Any]], None]:
        def heard(event: str, fields: dict[str, Any]) -> None:
            answers[n].append(event)
            if n == 19:
                over.set()

        return heard

    for n in answers:
        engine.submit("me", ("frame", n), See(bus, wish_of("classify")), hear(n))
    assert over.wait(60)
    asked(engine, ("frame", "last"), See(bus, wish_of("classify")))
    assert all(len(events) == 1 for events in answers.values()), answers
    assert answers[19] == ["result"] and "dropped" in {events[0] for events in answers.values()}


def test_a_model_is_described_when_it_is_here(engine: Engine) -> None:
    told: list[Message] = []
    over = threading.Event()

    def hear(event: str, fields: dict[str, Any]) -> None:
        told.append((event, fields))
        if event in ("here", "error"):
            over.set()

    engine.progress("me", FIRST["classify"], hear)
    assert over.wait(60) and told[-1][0] == "here"
    assert told[-1][1] == engine.describe(FIRST["classify"]) and told[-1][1]["labels"]
    assert engine.describe("no such model") is None
