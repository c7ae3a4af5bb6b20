"""Who is served next, with work that only writes down that it was done."""
from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from stand_in import until

from serving import scheduler
from serving.engine import Full
from serving.scheduler import Frame, Request, Scheduler


class Desk:
    """A scheduler whose thread is held at a gate, so that tests decide what waits when it goes on."""

    def __init__(self, *clients: str):
        self.done: list[str] = []
        self.scheduler = Scheduler()
        self.gate = threading.Event()
        for client in ("holder", *clients):
            self.scheduler.join(client)

    def hold(self) -> None:
        self.gate.clear()
        held = threading.Event()

        def run() -> None:
            held.set()
            assert self.gate.wait(10)

        self.scheduler.frame("holder", Frame(run, print, print, print))
        assert held.wait(10)

    def frame(self, client: str, name: str, run: Callable[[], Any] | None = None, **more: Any) -> None:
        def write() -> Any:
            self.done.append(name)
            return run() if run else None

        self.scheduler.frame(client, Frame(
            write, lambda: self.done.append(f"{name} replaced"), lambda e: self.done.append(f"{name}: {e}"),
            lambda: self.done.append(f"{name} closing"), **more))

    def request(self, client: str, name: str, steps: Any, id: str = "") -> None:
        self.scheduler.request(client, Request(id or name, steps, self.done.append,
                                               lambda e: self.done.append(f"{name}: {e}")))

    def steps(self, name: str, count: int) -> Iterator[str]:
        try:
            for n in range(1, count + 1):
                yield f"{name}{n}"
        finally:
            self.done.append(f"{name} ended")

    def idle(self) -> list[str]:
        self.gate.set()
        until(lambda: not {"frames", "requests"} & {k for k, n in self.scheduler.waiting().items() if n},
              "idleness")
        after = threading.Event()
        self.scheduler.frame("holder", Frame(after.set, print, print, print))   # type: ignore[arg-type]
        assert after.wait(10)
        return self.done


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk("a", "b", "c")
    yield made
    made.gate.set()
    made.scheduler.close()
    assert not made.scheduler._thread.is_alive()


def test_the_newest_frame_wins_and_the_replaced_one_is_told(desk: Desk) -> None:
    desk.hold()
    for name in ("a1", "a2", "a3"):
        desk.frame("a", name)
    assert desk.idle() == ["a1 replaced", "a2 replaced", "a3"]


def test_clients_take_turns_however_fast_one_of_them_is(desk: Desk) -> None:
    desk.hold()

    def again(client: str, n: int) -> Callable[[], None]:
        return lambda: desk.frame(client, f"{client}{n + 1}", again(client, n + 1)) if n < 5 else None

    for client in "abc":
        desk.frame(client, f"{client}1", again(client, 1))
    assert desk.idle() == [f"{client}{n}" for n in range(1, 6) for client in "abc"]


def test_frames_come_strictly_before_requests(desk: Desk) -> None:
    desk.hold()
    desk.request("a", "x", desk.steps("x", 3))
    desk.frame("b", "b1", lambda: desk.frame("b", "b2"))
    desk.frame("c", "c1")
    assert desk.idle() == ["b1", "c1", "b2", "x1", "x2", "x3", "x ended"]


def test_a_frame_gets_in_between_two_steps(desk: Desk) -> None:
    def steps() -> Iterator[str]:
        desk.frame("b", "b1")
        yield "x1"
        yield "x2"

    desk.hold()
    desk.request("a", "x", steps())
    assert desk.idle() == ["x1", "b1", "x2"]


def test_requests_take_turns_too(desk: Desk) -> None:
    desk.hold()
    desk.request("a", "x", desk.steps("x", 2))
    desk.request("b", "y", desk.steps("y", 2))
    assert [d for d in desk.idle() if "ended" not in d] == ["x1", "y1", "x2", "y2"]


def test_a_request_that_waited_long_gets_a_turn_among_many_cameras(
        desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "PATIENCE", 0.05)
    desk.hold()
    desk.request("a", "x", desk.steps("x", 1))
    stop = threading.Event()

    def again() -> None:
        if not stop.is_set():
            desk.frame("b", "b", again)

    desk.frame("b", "b", again)
    desk.gate.set()
    until(lambda: "x1" in desk.done, "the explanation's turn")
    stop.set()
    assert desk.done[0] == "b" and "b" in desk.idle()


def test_the_live_explanation_follows_its_result_and_others_go_in_between(desk: Desk) -> None:
    desk.hold()

    def result() -> Callable[[], None]:
        desk.frame("a", "a2")
        return lambda: desk.done.append("why a1")

    desk.frame("a", "a1", result)
    desk.frame("b", "b1")
    assert desk.idle() == ["a1", "b1", "why a1", "a2"]


def test_an_unhurried_frame_gives_way_but_not_for_ever(
        desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.hold()
    desk.frame("a", "caption", unhurried=True)
    desk.frame("b", "b1", lambda: desk.frame("b", "b2"))
    desk.request("c", "x", desk.steps("x", 1))
    assert [d for d in desk.idle() if "ended" not in d] == ["b1", "b2", "x1", "caption"]
    desk.done.clear()
    monkeypatch.setattr(scheduler, "UNHURRIED", 0.0)
    desk.hold()
    desk.frame("a", "caption", unhurried=True)
    desk.request("c", "x", desk.steps("x", 1))
    assert desk.idle()[0] == "caption"


def test_stopping_ends_a_request_between_two_steps_and_silences_it(desk: Desk) -> None:
    def steps() -> Iterator[str]:
        try:
            yield "x1"
            desk.scheduler.stop("a", "x")
            yield "said too late"
            desk.done.append("never")
        finally:
            desk.done.append("x ended")

    desk.request("a", "x", steps())
    until(lambda: "x ended" in desk.done, "the end of x")
    assert desk.idle() == ["x1", "x ended"]


def test_the_same_id_again_replaces_and_another_id_does_not(desk: Desk) -> None:
    desk.hold()
    desk.request("a", "old", desk.steps("old", 3), id="one")
    desk.request("a", "other", desk.steps("other", 1), id="two")
    desk.request("a", "new", desk.steps("new", 1), id="one")
    done = [d for d in desk.idle() if "ended" not in d]
    assert sorted(done) == ["new1", "other1"]


def test_stopping_without_an_id_stops_all_of_one_client_only(desk: Desk) -> None:
    desk.hold()
    desk.request("a", "x", desk.steps("x", 2))
    desk.request("a", "y", desk.steps("y", 2))
    desk.request("b", "z", desk.steps("z", 1))
    desk.scheduler.stop("a")
    assert [d for d in desk.idle() if "ended" not in d] == ["z1"]


def test_who_leaves_in_the_middle_is_forgotten(desk: Desk) -> None:
    desk.hold()
    desk.frame("a", "a1")
    desk.request("a", "x", desk.steps("x", 5))
    desk.scheduler.leave("a")
    desk.frame("a", "a2")
    desk.request("a", "y", desk.steps("y", 5))
    assert desk.idle() == ["a2 closing"]
    assert desk.scheduler.waiting()["clients"] == 3


def test_who_leaves_during_its_own_step_gets_no_more(desk: Desk) -> None:
    def steps() -> Iterator[str]:
        desk.scheduler.leave("a")
        yield "said to nobody"
        desk.done.append("never")

    desk.request("a", "x", steps())
    assert desk.idle() == []


def test_an_exception_is_answered_and_the_thread_lives_on(desk: Desk) -> None:
    def steps() -> Iterator[str]:
        yield "x1"
        raise ValueError("broken step")

    def broken() -> None:
        raise ValueError("broken frame")

    desk.hold()
    desk.frame("a", "a1", broken)
    desk.request("a", "x", steps())
    desk.frame("b", "b1", lambda: broken)           # the follow-up breaks, after the answer
    assert desk.idle() == ["a1", "a1: broken frame", "b1", "x1", "x: broken step"]
    desk.frame("a", "a2")
    assert desk.idle()[-1] == "a2"


def test_a_step_that_waits_for_something_keeps_nobody_else_waiting(desk: Desk) -> None:
    arrival: Future[str] = Future()

    def steps() -> Iterator[Any]:
        yield arrival
        yield f"x has {arrival.result()}"

    desk.request("a", "x", steps())
    desk.request("b", "y", desk.steps("y", 2))
    until(lambda: "y ended" in desk.done, "y")
    desk.frame("c", "c1", waiting=arrival)
    desk.frame("b", "b1")
    until(lambda: "b1" in desk.done, "b1")
    assert "c1" not in desk.done
    arrival.set_result("it")
    assert set(desk.idle()[4:]) == {"c1", "x has it"}


def test_a_frame_can_be_withdrawn_for_a_new_wish(desk: Desk) -> None:
    desk.hold()
    desk.frame("a", "a1", id=1)
    desk.frame("b", "b1", id=2)
    for client in "ab":
        desk.scheduler.stop(client, 1)
    assert desk.idle() == ["b1"]


def test_one_client_cannot_pile_up_requests(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "WAITING_REQUESTS", 2)
    desk.hold()
    for name in ("x", "y"):
        desk.request("a", name, desk.steps(name, 1))
    with pytest.raises(Full):
        desk.request("a", "z", desk.steps("z", 1))
    desk.request("a", "x again", desk.steps("x again", 1), id="x")
    desk.request("b", "b", desk.steps("b", 1))
    assert {"y1", "b1", "x again1"} <= set(desk.idle())


def test_closing_answers_what_waits_and_ends_the_thread(desk: Desk) -> None:
    desk.hold()
    desk.frame("a", "a1")
    desk.request("b", "x", desk.steps("x", 2))
    threading.Timer(0.05, desk.gate.set).start()
    desk.scheduler.close()
    desk.frame("b", "b1")
    assert desk.done[0] == "a1 closing" and desk.done[-1] == "b1 closing"
    assert not desk.scheduler._thread.is_alive()
