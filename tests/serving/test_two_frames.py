"""Two frames under way, one in the model and the newest one waiting: each is answered once and in order."""
from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import toy_room
from stand_in import ANSWERS, Client, colour, jpeg, until
from test_wire import Caller
from torch import Tensor

from models.base import Features
from serving.events import Live

PICTURES = {name: jpeg(colour(name)) for name in ("red", "green", "blue")}
NAMES = tuple(PICTURES)


class Gate:
    """Holds the model while it looks, so that tests decide what waits."""

    def __init__(self) -> None:
        self.open, self.looking = threading.Event(), threading.Event()
        self.open.set()

    def shut(self) -> None:
        self.looking.clear()
        self.open.clear()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, toys: None) -> Iterator[Gate]:
    made, encode = Gate(), toy_room.Toy.encode

    def slowly(self: toy_room.Toy, x: Tensor) -> Features:
        made.looking.set()
        assert made.open.wait(10)
        return encode(self, x)

    monkeypatch.setattr(toy_room.Toy, "encode", slowly)
    yield made
    made.open.set()


def send(caller: Caller | Client, seq: int, name: str, **fields: object) -> None:
    message = {"seq": seq, "jpeg": PICTURES[name], **fields}
    (caller.io if isinstance(caller, Caller) else caller).emit("frame", message)


def answers(caller: Caller | Client) -> list[int]:
    """Whose answers were heard, in order."""
    caller.all()
    return [d["seq"] for e, d in tuple(caller.heard) if e in ANSWERS and "id" not in d]


def test_one_in_the_model_and_one_waiting_are_both_looked_at(gate: Gate, online: tuple[Live, str]) -> None:
    caller = Caller(online[1])
    gate.shut()
    send(caller, 1, "red")
    assert gate.looking.wait(10)
    send(caller, 2, "green")
    time.sleep(0.05)
    assert not answers(caller), "neither is dropped"
    gate.open.set()
    said = caller.one("result", seq=2)
    assert said["classes"][0]["label"] == "green" and said["ms"]["wait"] >= 40
    assert answers(caller) == [1, 2]
    caller.io.disconnect()


def test_of_those_that_wait_the_newest_wins(gate: Gate, online: tuple[Live, str]) -> None:
    caller = Caller(online[1])
    gate.shut()
    send(caller, 1, "red")
    assert gate.looking.wait(10)
    for seq in (2, 3, 4):
        send(caller, seq, "blue")
    caller.one("dropped", seq=3)
    gate.open.set()
    caller.one("result", seq=4)
    assert answers(caller) == [2, 3, 1, 4]
    assert {d["code"] for d in caller.all("dropped")} == {"newer"}
    assert [r["classes"][0]["label"] for r in caller.all("result")] == ["red", "blue"]
    caller.io.disconnect()


def test_a_page_that_keeps_two_under_way_loses_none_and_hears_them_in_order(online: tuple[Live, str]) -> None:
    """Each answer lets the next one go, as the page does it; maps come between, and need no credit."""
    caller, count = Caller(online[1]), 60
    caller.io.emit("configure", {"method": "toy_odd"})
    sent = 0
    while sent < count:
        if sent - len(answers(caller)) < 2:
            sent += 1
            send(caller, sent, NAMES[sent % 3])
        time.sleep(0.001)
    until(lambda: len(answers(caller)) == count, "all answers")
    assert Counter(answers(caller)) == Counter(range(1, count + 1))
    seen = [r["seq"] for r in caller.all("result")]
    assert seen == sorted(seen) and count in seen
    for result in caller.all("result"):
        assert result["classes"][0]["label"] == NAMES[result["seq"] % 3]
        assert caller.one("explanation", seq=result["seq"])["title"] == f"why {NAMES[result['seq'] % 3]}"
    caller.io.disconnect()


def test_another_model_takes_both_credits_back(gate: Gate, live: Live) -> None:
    client = Client(live).here()
    gate.shut()
    for seq in (1, 2):
        send(client, seq, "red")
        assert gate.looking.wait(10)
    client.emit("configure", {"model": "toy-broken"})
    until(lambda: answers(client) == [1, 2], "both answers")
    assert {d["code"] for d in client.all("dropped")} == {"configuring"}
    gate.open.set()
    assert client.frame(PICTURES["green"], seq=3)["model"] == "toy-broken"
    assert answers(client) == [1, 2, 3], "what the old model saw is not told"


def test_a_kept_picture_takes_the_waiting_place_and_is_not_given_up_for_a_wish(
        gate: Gate, live: Live) -> None:
    client = Client(live).here()
    gate.shut()
    send(client, 1, "red")
    assert gate.looking.wait(10)
    send(client, 2, "green")
    send(client, 3, "blue", keep=True)
    assert client.one("dropped", seq=2)["code"] == "newer"
    client.emit("configure", {"model": "toy-slow"})
    assert client.one("dropped", seq=1)["code"] == "configuring"
    gate.open.set()
    toy_room.GATE.set()
    assert client.one("result", seq=3)["classes"][0]["label"] == "blue"
    assert answers(client) == [2, 1, 3]


def test_a_flood_from_one_costs_the_other_no_more_than_turns(gate: Gate, live: Live) -> None:
    """Frames that are dropped are never decoded: only what is looked at counts."""
    calm, loud = Client(live).here(), Client(live).here()
    gate.shut()
    send(calm, 1, "red")
    assert gate.looking.wait(10)
    send(calm, 2, "green")
    for seq in range(1, 101):
        send(loud, seq, "blue")
    gate.open.set()
    assert calm.one("result", seq=2)["classes"][0]["label"] == "green"
    loud.one("result", seq=100)
    assert len(loud.all("result")) == 1 and len(loud.all("dropped")) == 99
