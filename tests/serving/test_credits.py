"""Whatever is sent, every frame's credit comes back exactly once, and nobody sees another's pictures."""
from __future__ import annotations

import gc
import random
import weakref
from collections import Counter
from typing import Any

import pytest
import toy_room
from stand_in import ANSWERS, Client, colour, engine_of, jpeg, png, until
from test_events import HOLE

from serving.events import Live

PICTURES = {name: jpeg(colour(name)) for name in ("red", "green", "blue")}


def garbage(dice: random.Random) -> Any:
    """Anything JSON and bytes can carry."""
    return dice.choice([
        None, True, -1, 3, 2**60, 1.5, "", "x", "toy", "class:1", b"", b"\xff\xd8\xff", dice.randbytes(50),
        [], [1], {}, {"a": 1}, {"steps": 2}, ["toy"], "box:0", "a" * 2000])


def message(dice: random.Random, event: str, seq: int) -> dict[str, Any]:
    """A message that is right in most of its fields."""
    data = bytearray(dice.choice(list(PICTURES.values())))
    if dice.random() < 0.3:
        for _ in range(dice.randint(1, 40)):
            data[dice.randrange(len(data))] = dice.randrange(256)
    right: dict[str, dict[str, Any]] = {
        "frame": {"jpeg": bytes(data), "keep": dice.random() < 0.3,
                  "model": dice.choice([None, "toy", "toy-broken", "toy-away"])},
        "configure": {"task": "classify", "model": dice.choice(["toy", "toy-broken", "toy-away"]),
                      "method": dice.choice([None, "toy_odd", "saliency", "toy_counting"]),
                      "target": dice.choice([None, "class:2", "class:9", "near:0,0"])},
        "explain": {"id": dice.randint(1, 5), "seq": dice.randint(max(1, seq - 20), seq),
                    "method": dice.choice(["toy_counting", "saliency", "toy_failing", "toy_odd"]),
                    "params": {}, "target": None, "edited": dice.random() < 0.3},
        "edit": {"id": dice.randint(1, 5), "seq": dice.randint(max(1, seq - 20), seq), "mask": png(HOLE),
                 "fill": dice.choice(["telea", "mean_colour", "nothing"])},
        "stop": {"id": dice.randint(1, 5)},
    }
    fields = right[event]
    for name in fields:
        if dice.random() < 0.06:
            fields[name] = garbage(dice)
    return {**fields, **({"seq": seq} if event == "frame" else {})}


@pytest.mark.parametrize("seed", range(4))
def test_every_credit_comes_back_exactly_once_whatever_is_sent(
        live: Live, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    dice = random.Random(seed)
    clients = [Client(live).here() for _ in range(3)]
    sent: list[list[int]] = [[] for _ in clients]
    for seq in range(1, 151):
        for client, frames in zip(clients, sent, strict=True):
            event = dice.choices(["frame", "configure", "explain", "edit", "stop"], [8, 1, 2, 1, 1])[0]
            client.emit(event, message(dice, event, seq))
            if event == "frame":
                frames.append(seq)
            if dice.random() < 0.05:
                client.emit(dice.choice(["frame", "configure", "explain", "edit", "stop"]),
                            *[garbage(dice) for _ in range(dice.randint(0, 2))])
    for client in clients:
        client.emit("stop", {})
    until(lambda: not {"frames", "requests"} & {k for k, n in engine_of(live).waiting().items() if n},
          "idleness")
    for client, frames in zip(clients, sent, strict=True):
        client.emit("configure", {"model": "toy", "method": None, "target": None})
        assert client.frame(PICTURES["green"], seq=1000)["classes"][0]["label"] == "green"
        answered = Counter(a["seq"] for a in client.all(*ANSWERS) if "seq" in a and "id" not in a)
        assert answered == Counter([*frames, 1000])
        assert {"result", "error"} <= {e for e, _ in client.heard}
    unforeseen = {str(record.exc_info[1]) for record in caplog.records if record.exc_info}
    assert unforeseen <= {"blue cannot be borne", "in the middle"}, "the wrong is found, not stumbled over"


def test_leaving_in_the_middle_of_everything_leaves_nothing_behind(live: Live) -> None:
    stays = Client(live).here()
    for n in range(5):
        leaves = Client(live).here()
        leaves.frame(PICTURES["red"], seq=1, keep=True)
        leaves.emit("edit", {"id": "e", "seq": 1, "mask": png(HOLE), "fill": "patch_match"})
        leaves.emit("explain", {"id": "x", "seq": 1, "method": "toy_counting", "params": {"steps": 1000}})
        leaves.emit("frame", {"seq": 2, "jpeg": PICTURES["blue"], "model": "toy-slow"})
        leaves.leave()
        assert stays.frame(PICTURES["green"], seq=n + 1)["classes"][0]["label"] == "green"
    until(lambda: engine_of(live).waiting() == {"clients": 1, "frames": 0, "requests": 0}, "forgetting")
    assert len(live.sessions) == 1


def test_kept_pictures_are_bounded_and_forgotten_with_their_client(live: Live) -> None:
    client = Client(live).here()
    session = next(iter(live.sessions.values()))
    kept = []
    for seq in range(1, 31):
        client.frame(PICTURES["red"], seq=seq, keep=True)
        kept.append(weakref.ref(session.picture(seq)))
        for n in range(5):
            client.emit("explain", {"id": n, "seq": seq, "method": "saliency",
                                    "settings": {"sharpness": n + 2}})
            client.one("explanation", id=n, seq=seq)
    assert len(session.kept) == 8
    client.emit("explain", {"id": "old", "seq": 22, "method": "saliency"})
    assert client.one("error", id="old")["code"] == "gone" and "23, 24" in client.one("error")["message"]

    def alive() -> int:
        gc.collect()
        return sum(picture() is not None for picture in kept)

    until(lambda: alive() == 8, "the older pictures to be freed")
    client.leave()
    del session
    until(lambda: alive() == 0, "all pictures to be freed")


def test_a_picture_kept_again_under_its_number_replaces_the_old_one(live: Live) -> None:
    client = Client(live).here()
    client.frame(PICTURES["red"], seq=1, keep=True)
    client.heard.clear()
    client.frame(PICTURES["blue"], seq=1, keep=True)
    client.emit("explain", {"id": "a", "seq": 1, "method": "toy_odd"})
    assert client.one("explanation", id="a")["title"] == "why blue"


def test_clients_never_see_each_others_pictures(live: Live) -> None:
    clients = {name: Client(live).here() for name in PICTURES}
    for client in clients.values():
        client.emit("configure", {"method": "toy_odd"})
    for seq in range(1, 21):
        for name, client in clients.items():
            client.emit("frame", {"seq": seq, "jpeg": PICTURES[name], "keep": seq % 5 == 0})
    for client in clients.values():
        client.one(*ANSWERS, seq=20)
        client.emit("edit", {"id": "e", "seq": 20, "mask": png(HOLE), "fill": "mean_colour"})
        client.emit("explain", {"id": "x", "seq": 20, "method": "saliency"})
    for name, client in clients.items():
        assert client.one("result", id="e")["classes"][0]["label"] == name
        assert client.one("explanation", id="x")["title"] == f"why {name}"
        assert {r["classes"][0]["label"] for r in client.all("result")} == {name}
        assert {e["title"] for e in client.all("explanation")} == {f"why {name}"}
    only = clients["red"]
    only.frame(PICTURES["red"], seq=77, keep=True)
    clients["green"].emit("explain", {"id": "theft", "seq": 77, "method": "saliency"})
    assert clients["green"].one("error", id="theft")["code"] == "gone"


def test_two_people_editing_at_once_see_only_their_own(live: Live) -> None:
    one, two = Client(live).here(), Client(live).here()
    one.frame(PICTURES["red"], seq=1, keep=True)
    two.frame(PICTURES["blue"], seq=1, keep=True)
    for n in range(6):
        for client in (one, two):
            client.emit("edit", {"id": n, "seq": 1, "mask": png(HOLE), "fill": "telea",
                                 "preview": n % 2 == 0})
    for client, name in ((one, "red"), (two, "blue")):
        client.one("result", id=5)
        client.emit("explain", {"id": "x", "seq": 1, "method": "saliency", "edited": True})
        assert client.one("explanation", id="x")["title"] == f"why {name}"
        assert all(r["classes"][0]["label"] == name and r["before"]["classes"][0]["label"] == name
                   for r in client.all("result", edited=True))


def test_only_so_many_pages_at_once(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    object.__setattr__(live.settings, "clients", 2)
    Client(live), Client(live)
    third = Client(live)
    assert third._io.is_connected() is False or third.all("error")[0]["code"] == "busy"
    assert len(live.sessions) == 2


def test_nothing_is_loaded_twice_however_many_ask(live: Live) -> None:
    clients = [Client(live) for _ in range(5)]
    for client in clients:
        client.here()
    assert toy_room.LOADS == ["toy"]
