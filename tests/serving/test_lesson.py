"""What a class does in a room, over real sockets: raised hands, polls, a phone as camera."""
from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from person import Person, code_of, live_maps
from processes import Visitor, whole
from stand_in import colour, jpeg, png, until
from test_wire import asked

from serving.events import Live
from serving.room import hits_of

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
Online = tuple[Live, str]
COLOURS = ("red", "green", "blue")
HOLE = png(np.arange(48 * 64).reshape(48, 64) % 64 < 20)


# -- Hands


def test_a_raised_hand_is_seen_opened_and_shown(presenter: Person, class_of: Any) -> None:
    a, b = class_of(2)
    presenter.show(1, keep=True)
    for viewer, target in ((a, "class:1"), (b, "class:2")):
        viewer.say("hand", seq=1, method="grad_cam", target=target, note=f"look:\n {target} ")
    hands = presenter.last("hands", lambda m: m["count"] == 2)
    assert sorted(h["note"] for h in hands["list"]) == ["look: class:1", "look: class:2"]
    assert not any("client" in hand or "you" in hand for hand in hands["list"])
    mine = next(h for h in hands["list"] if h["target"] == "class:1")
    presenter.say("show", hand=mine["hand"], peek=True)
    assert presenter.one("shown", hand=mine["hand"])["jpeg"] == jpeg(colour("red"))
    assert presenter.one("explanation", hand=mine["hand"])["heat"] and not b.all("shown")
    presenter.say("show", hand=mine["hand"])
    for viewer in (a, b):
        assert viewer.one("shown")["target"] == "class:1"
        assert viewer.one("explanation", hand=mine["hand"])["done"]
    assert presenter.last("hands", lambda m: m["count"] == 1)
    b.say("hand")
    assert presenter.last("hands", lambda m: m["count"] == 0)
    presenter.say("show", hand=mine["hand"], id="late")
    assert presenter.one("error", id="late")["code"] == "gone"


def test_a_hand_without_sense_is_answered(presenter: Person, class_of: Any) -> None:
    (viewer,) = class_of(1)
    presenter.show(1, keep=True)
    nonsense: tuple[dict[str, Any], ...] = (
        {"seq": 99, "method": "grad_cam"}, {"seq": 1, "method": "none"}, {"seq": 1},
        {"seq": 1, "method": "grad_cam", "note": "x" * 141}, {"seq": "one"},
        {"seq": 1, "method": "grad_cam", "target": "box:1"}, {"seq": 1, "method": "grad_cam", "params": [1]})
    for id, fields in enumerate(nonsense):
        viewer.say("hand", id=id, **fields)
        assert viewer.one("error", id=id)["code"] in ("bad_input", "gone")
    assert not [m for m in presenter.all("hands") if m["count"]]


# -- Polls


def test_a_poll_shows_where_everybody_tapped_and_who_was_right(presenter: Person, class_of: Any) -> None:
    live_maps(presenter)
    a, b, c = class_of(3)
    presenter.show(1, "red", keep=True)
    presenter.say("poll", seq=1)
    for viewer in (a, b, c):
        assert viewer.last("poll", lambda m: m["seq"] == 1)
    presenter.say("explain", id="map", seq=1, method="toy_odd")   # hot in one cell: row 3, column 5 of 16
    presenter.one("explanation", id="map")
    presenter.show(2, "blue")                  # the picture stands still meanwhile
    a.say("tap", x=0.9, y=0.9)
    a.say("tap", x=5.5 / 16, y=3.5 / 16)       # changed one's mind
    b.say("tap", x=0.0, y=1.0)
    assert presenter.last("taps", lambda m: m["count"] == 2).keys() == {"seq", "count"}
    (late,) = class_of(1)
    assert late.last("taps", lambda m: m["count"] == 2) and late.one("picture")["seq"] == 1
    presenter.say("reveal")
    for person in (presenter, a, late):
        taps = person.last("taps", lambda m: "points" in m)
        assert sorted(map(tuple, taps["points"])) == [(0.0, 1.0), (5.5 / 16, 3.5 / 16)]
        assert (taps["count"], taps["hits"], taps["share"]) == (2, 1, 0.5)
    assert late.one("explanation")["method"] == "toy_odd"
    order = [event for event, m in late.heard if event == "explanation" or "points" in m]
    assert order[0] == "explanation"
    c.say("tap", x=0.1, y=0.1, id="late")
    assert c.one("error", id="late")["code"] == "bad_input"
    presenter.show(3, "green")                 # life goes on, and the poll is over
    assert a.last("poll", lambda m: m["seq"] is None) and a.last("picture", lambda m: m["seq"] == 3)


def test_a_poll_can_be_taken_back_and_nonsense_is_answered(presenter: Person, class_of: Any) -> None:
    (viewer,) = class_of(1)
    presenter.say("poll", seq=77, id="none")
    assert presenter.one("error", id="none")["code"] == "gone"
    presenter.say("reveal", id="early")
    assert presenter.one("error", id="early")["code"] == "bad_input"
    presenter.show(1)
    presenter.say("poll", seq=1)
    viewer.last("poll", lambda m: m["seq"] == 1)
    for id, (x, y) in enumerate(((2, 0), (0, -1), ("a", 0), (True, 0), (None, None))):
        viewer.say("tap", x=x, y=y, id=id)
        assert viewer.one("error", id=id)["code"] == "bad_input"
    presenter.say("poll", seq=None)
    assert viewer.last("poll", lambda m: m["seq"] is None)
    presenter.show(2)
    assert viewer.last("picture", lambda m: m["seq"] == 2)


def test_who_comes_back_has_one_tap(presenter: Person, class_of: Any, online: Online) -> None:
    (viewer,) = class_of(1)
    presenter.show(1)
    presenter.say("poll", seq=1)
    viewer.last("poll", lambda m: m["seq"] == 1)
    viewer.say("tap", x=0.1, y=0.1)
    presenter.last("taps", lambda m: m["count"] == 1)
    you = viewer.one("joined")["you"]
    viewer.leave()
    back = Person(online[1])
    assert back.watch(code_of(presenter), you=you)["you"] == you
    back.say("tap", x=0.2, y=0.2)
    back.say("tap", id="heard")                # nonsense, whose answer says that the one before was taken
    back.one("error", id="heard")
    presenter.say("reveal")
    assert presenter.last("taps", lambda m: "points" in m)["points"] == [[0.2, 0.2]]
    back.leave()


def test_the_hottest_tenth() -> None:
    heat = np.zeros((10, 10), np.uint8)
    heat[2, 3] = 200
    e = {"heat": heat.tobytes(), "shape": [10, 10], "signed": False, "area": [100, 0, 200, 100],
         "empty": False}
    size = (300, 100)                          # the model saw the middle of it
    inside = (135 / 300, 0.25)
    assert hits_of([inside, (0.1, 0.25), (0.9, 0.25), (0.5, 0.99)], e, size) == 1
    everywhere = e | {"heat": np.arange(100, dtype=np.uint8).tobytes(), "area": [0, 0, 300, 100]}
    grid = [((c + 0.5) / 10, (r + 0.5) / 10) for r in range(10) for c in range(10)]
    assert hits_of(grid, everywhere, size) == 10
    assert hits_of([(1, 1), (1.0, 0.0)], everywhere, size) == 1
    against = e | {"signed": True, "heat": np.full(100, 3, np.uint8).tobytes(), "area": [0, 0, 300, 100]}
    assert hits_of(grid, against, size) == 0   # evidence against it is not where it looks
    assert hits_of(grid, e | {"empty": True}, size) is None and hits_of(grid, None, size) is None


# -- A phone as camera


def test_a_lent_camera_is_the_presenters(presenter: Person, class_of: Any) -> None:
    live_maps(presenter)
    phone, other = class_of(2)
    phone.say("frame", seq=1, jpeg=jpeg(colour("red")))
    assert phone.one("error", seq=1)["code"] == "viewer"
    phone.say("lend")
    (offer,) = presenter.last("lent", lambda m: m["offers"])["offers"]
    presenter.say("borrow", offer=offer)
    assert phone.one("lent")["on"] and presenter.last("lent", lambda m: m["on"])["offers"] == []
    phone.say("frame", seq=2, jpeg=jpeg(colour("blue")))
    credit = phone.one("result", seq=2)
    assert credit["lent"] and "classes" not in credit
    seen = presenter.last("result", lambda m: m["classes"][0]["label"] == "blue")
    assert presenter.one("picture", seq=seen["seq"])["jpeg"] == jpeg(colour("blue"))
    assert presenter.one("explanation", seq=seen["seq"])["live"]
    assert other.one("result", seq=seen["seq"])["classes"] == seen["classes"]
    phone.say("frame", seq=3, jpeg=b"nothing")
    assert phone.one("error", seq=3)["code"] == "not_jpeg"
    presenter.show(3, "green", keep=True)      # a still: the phone's pictures do not push it aside
    phone.say("frame", seq=5, jpeg=jpeg(colour("blue")))
    assert phone.one("dropped", seq=5)["lent"] and other.last("picture", lambda m: m["seq"] == 3)
    presenter.say("borrow")
    presenter.say("poll", seq=99, id="later")  # nonsense, whose answer says that the one before was taken
    presenter.one("error", id="later")
    phone.say("frame", seq=6, jpeg=jpeg(colour("blue")))
    assert phone.one("result", seq=6)["lent"]
    phone.say("lend", on=False)
    assert presenter.last("lent", lambda m: not m["on"]) and not phone.last("lent", lambda m: True)["on"]
    phone.say("frame", seq=4, jpeg=jpeg(colour("red")))
    assert phone.one("error", seq=4)["code"] == "viewer"


def offered(count: int, lent: dict[str, Any]) -> bool:
    return len(lent["offers"]) == count


def test_a_borrowed_camera_is_given_back_by_either_side(presenter: Person, class_of: Any) -> None:
    phone, second = class_of(2)
    for count, person in enumerate((phone, second), 1):
        person.say("lend")
        presenter.last("lent", partial(offered, count))
    presenter.say("borrow")
    assert phone.one("lent")["on"]
    presenter.say("borrow", on=False)
    assert not phone.last("lent", lambda m: not m["on"])["on"]
    presenter.say("borrow")
    assert second.one("lent")["on"]
    second.leave()
    assert presenter.last("lent", lambda m: not m["on"] and not m["offers"])
    presenter.say("borrow", offer=99, id="none")
    assert presenter.one("error", id="none")["code"] == "gone"


# -- By its link and nothing else


def test_a_rooms_link_lets_in_to_watch_and_for_nothing_else(tmp_path: Path) -> None:
    token = "a-token-for-tests"
    with whole(tmp_path / "log", SEEWHY_TOKEN=token, SEEWHY_CACHE=str(tmp_path)) as (_, url):
        presenter = Visitor(url, Authorization=f"Bearer {token}")
        presenter.io.emit("present", {})
        code = presenter.one("room")["code"]
        presenter.frame(1, jpeg(colour("red")))
        wrong = asked(url, "/join/apple-apple-apple-apple")
        assert wrong.status == 404 and b"no room has that code" in wrong.read()
        reply = asked(url, f"/join/{code}")
        cookie = (reply.getheader("Set-Cookie") or "").partition(";")[0]
        assert reply.status == 200 and b'class="watching"' in reply.read() and cookie
        assert asked(url, "/static/js/main.js", Cookie=cookie).status == 200
        viewer = Visitor(url, Cookie=cookie)
        for event in ("present", "configure", "frame"):        # not even before it has joined
            viewer.io.emit(event, {"seq": 1})
        until(lambda: len(viewer.all("error", code="viewer")) == 3, "all three to be refused")
        viewer.io.emit("join", {"code": code})
        assert viewer.one("result", seq=1)["classes"]
        for client in (presenter, viewer):
            client.io.disconnect()
