"""Fills are bounded, can be stopped, and one client's keep no other waiting."""
from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from stand_in import Client, colour, jpeg, png, until
from test_events import HOLE
from test_wire import Caller

from explainers import inpaint
from explainers.inpaint import FILLS, Fill, fill, pieces
from serving.brush import Brush
from serving.events import Live

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class Slow:
    """A fill that takes as long as the test says, piece by piece."""

    def __init__(self) -> None:
        self.pieces, self.begun, self.go_on, self.ended = 0, threading.Event(), threading.Event(), False

    def run(self, frame: np.ndarray, mask: np.ndarray) -> Iterator[np.ndarray | None]:
        try:
            while not self.go_on.is_set():
                self.pieces += 1
                self.begun.set()
                self.go_on.wait(0.01)
                yield None
            yield np.zeros_like(frame)
        finally:
            self.ended = True


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    made = Slow()
    monkeypatch.setitem(FILLS, "slow", Fill("slow", "Slow", "", (), (), {}, lambda pixels: 1.0, made.run))
    yield made
    made.go_on.set()


def edit(caller: Caller, name: str, fill: str) -> None:
    caller.io.emit("edit", {"id": name, "seq": 1, "mask": png(HOLE), "fill": fill})


def test_slow_fills_of_some_keep_no_other_waiting(online: tuple[Live, str], slow: Slow) -> None:
    callers = [Caller(online[1]) for _ in range(4)]
    for caller, name in zip(callers, ("red", "green", "blue", "red"), strict=True):
        caller.frame(1, jpeg(colour(name)), keep=True)
    for caller in callers[:3]:                 # more than there are threads, and more than one of each
        for n in range(5):
            edit(caller, f"slow {n}", "slow")
    assert slow.begun.wait(10)
    edit(callers[3], "quick", "telea")
    assert callers[3].one("result", id="quick")["edited"] is True
    assert not [r for c in callers[:3] for r in c.all("result", edited=True)] and not slow.go_on.is_set()
    slow.go_on.set()
    for caller in callers[:3]:
        caller.one("result", id="slow 4")
    for caller in callers:
        caller.io.disconnect()


def test_a_fill_that_is_stopped_ends_between_two_pieces(online: tuple[Live, str], slow: Slow) -> None:
    caller = Caller(online[1])
    caller.frame(1, jpeg(colour("red")), keep=True)
    edit(caller, "e", "slow")
    assert slow.begun.wait(10)
    caller.io.emit("stop", {"id": "e"})
    until(lambda: slow.ended, "it to end")
    assert not slow.go_on.is_set() and not caller.all("result", id="e")
    caller.io.disconnect()


def test_a_fill_ends_with_its_client(live: Live, slow: Slow) -> None:
    client = Client(live).here()
    client.frame(colour("red"), seq=1, keep=True)
    client.emit("edit", {"id": "e", "seq": 1, "mask": png(HOLE), "fill": "slow"})
    assert slow.begun.wait(10)
    client.leave()
    until(lambda: slow.ended, "it to end")


def test_what_fails_is_told_and_others_go_on() -> None:
    brush = Brush(threads=1)

    def fails() -> Iterator[Any]:
        yield None
        raise ValueError("broken")

    def works() -> Iterator[Any]:
        yield None
        yield 7

    broken, fine = brush.submit("a", fails()), brush.submit("a", works())
    with pytest.raises(ValueError, match="broken"):
        broken.result(10)
    assert fine.result(10) == 7
    brush.close()


def test_turns_go_round_over_clients() -> None:
    brush, order, start = Brush(threads=1), [], threading.Event()

    def steps(name: str, count: int) -> Iterator[Any]:
        start.wait(10)
        for n in range(count):
            order.append(f"{name}{n}")
            yield None
        yield name

    futures = [brush.submit(client, steps(name, count))
               for client, name, count in (("a", "a", 3), ("a", "x", 1), ("b", "b", 2))]
    start.set()
    assert [f.result(10) for f in futures] == ["a", "x", "b"]
    assert order == ["a0", "b0", "a1", "b1", "a2", "x0"]
    brush.close()


@pytest.mark.parametrize("name, params", [("telea", {"radius": 30}), ("navier_stokes", {"radius": 30}),
                                          ("patch_match", {"patch": 7})])
@pytest.mark.parametrize("share", [0.3, 0.98])
def test_the_work_of_a_fill_is_bounded(name: str, params: dict[str, int], share: float,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is erased of a Full HD picture: 98 % of it, with the largest radius, took 201 s."""
    high, wide = 1080, 1920
    frame = np.random.default_rng(0).integers(0, 256, (high // 40, wide // 40, 3), np.uint8)
    frame = cv2.resize(frame, (wide, high), interpolation=cv2.INTER_CUBIC)
    mask = np.zeros((high, wide), bool)
    down, across = int(high * share**0.5), int(wide * share**0.5)
    mask[:down, :across] = True
    work: list[float] = []
    grow = cv2.inpaint

    def counted(picture: np.ndarray, hole: np.ndarray, radius: int, how: int) -> np.ndarray:
        work.append(int(hole.sum()) * radius**2)
        return grow(picture, hole, radius, how)

    monkeypatch.setattr(cv2, "inpaint", counted)
    seen: list[int] = []
    complete = inpaint.patchmatch.pieces

    def watched(less: np.ndarray, hole: np.ndarray, *more: Any) -> Any:
        seen.append(int(hole.sum()))
        return complete(less, hole, *more)

    monkeypatch.setattr(inpaint.patchmatch, "pieces", watched)
    filled = fill(frame, mask, name, params)
    assert (filled[~mask] == frame[~mask]).all() and filled.shape == frame.shape
    assert all(count <= 1.5 * inpaint.GROWN for count in work)
    assert all(count <= 1.1 * inpaint.COPIED for count in seen) and work


def test_patches_are_copied_in_many_small_pieces() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    mask = np.zeros((200, 300), bool)
    mask[50:120, 80:180] = True
    found = list(pieces(frame, mask, "patch_match"))
    assert len(found) > 50 and all(piece is None for piece in found[:-1])
    assert found[-1] is not None and (found[-1] == fill(frame, mask, "patch_match")).all()


@pytest.mark.parametrize("name", FILLS)
def test_all_but_a_line_is_filled_at_once(name: str) -> None:
    """Too thin a rest to be seen in a preview: there nothing would be left to fill from."""
    frame = np.full((1080, 1920, 3), (10, 200, 30), np.uint8)
    mask = np.ones((1080, 1920), bool)
    mask[:, :2] = False
    filled = fill(frame, mask, name, preview=True)
    assert np.abs(filled.astype(int) - frame).max() <= 4
    assert fill(frame, mask, name).shape == frame.shape
