"""A class in one room, over real sockets: who sees and does what, what nobody takes from others."""
from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from person import Person, code_of, live_maps
from raw import Raw
from served import put_online
from stand_in import Client, colour, jpeg, png, until

from explainers.base import Explanation, method
from serving import codes, fanout, rooms
from serving.events import Live

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
Online = tuple[Live, str]
COLOURS = ("red", "green", "blue")
HOLE = png(np.arange(48 * 64).reshape(48, 64) % 64 < 20)


# -- Present and join


def test_a_room_has_four_words_a_link_and_a_drawing_of_it(presenter: Person, online: Online) -> None:
    room = presenter.one("room")
    assert all(word in codes.WORDS for word in room["code"].split("-")) and room["code"].count("-") == 3
    assert room["link"] == f"{online[0].settings.address}/join/{room['code']}"
    assert room["viewers"] == 0 and room["here"] and room["qr"].startswith("<svg")
    assert len(codes.WORDS) == len(set(codes.WORDS)) >= 256


def test_viewers_hear_what_the_presenter_hears(presenter: Person, class_of: Any) -> None:
    live_maps(presenter)
    (viewer,) = class_of(1)
    sent = jpeg(colour("green"))
    presenter.say("frame", seq=1, jpeg=sent)
    mine, map_of_mine = presenter.one("result", seq=1), presenter.one("explanation", seq=1)
    assert viewer.one("picture", seq=1) == {"seq": 1, "jpeg": sent, "kept": False}
    assert viewer.one("result", seq=1) == mine and viewer.one("explanation", seq=1) == map_of_mine
    events = [event for event, fields in viewer.heard if fields.get("seq") == 1]
    assert events == ["picture", "result", "explanation"]
    presenter.say("explain", id="why", seq=presenter.show(2, "blue", keep=True)["seq"], method="grad_cam")
    still = viewer.one("explanation", seq=2)
    assert still["heat"] == presenter.one("explanation", id="why")["heat"] and "id" not in still
    assert viewer.one("picture", seq=2)["kept"]
    presenter.say("edit", id="gone", seq=2, fill="telea", mask=HOLE)
    edited = viewer.one("result", seq=2, edited=True)
    assert edited["image"] == presenter.one("result", id="gone")["image"]


def test_what_is_for_the_presenters_page_alone_is_not_shown(presenter: Person, class_of: Any) -> None:
    (viewer,) = class_of(1)
    presenter.show(1, keep=True)
    presenter.say("explain", id="compared", seq=1, method="grad_cam", target="class:1", aside=True)
    presenter.one("explanation", id="compared")
    presenter.say("explain", id="shown", seq=1, method="grad_cam", target="class:2")
    viewer.one("explanation", target="class:2")
    assert [e["target"] for e in viewer.all("explanation")] == ["class:2"]


def test_tabs_and_models_of_the_presenter_are_followed(presenter: Person, class_of: Any) -> None:
    (viewer,) = class_of(1)
    assert viewer.one("tab") == {"tab": "classify"}
    presenter.say("configure", task="detect")
    assert viewer.last("tab", lambda m: m["tab"] == "detect")
    assert viewer.last("ready", lambda m: m["configured"]["model"] == "toy-boxes")["labels"]
    presenter.say("tab", tab="whatif")
    assert viewer.last("tab", lambda m: m["tab"] == "whatif")
    presenter.say("tab", tab="kitchen")
    assert presenter.one("error")["code"] == "bad_input"


def test_a_latecomer_is_given_everything_at_once(presenter: Person, class_of: Any) -> None:
    live_maps(presenter)
    presenter.say("tab", tab="whatif")
    presenter.show(7, "blue")
    presenter.one("explanation", seq=7)
    (viewer,) = class_of(1)
    assert {viewer.one(event)["seq"] for event in ("explanation", "result", "picture")} == {7}
    assert viewer.one("tab") == {"tab": "whatif"}
    assert viewer.heard[[e for e, _ in viewer.heard].index("joined") + 1:]
    assert viewer.one("joined")["ready"]["configured"]["method"] == "grad_cam"


def test_everybody_knows_how_many_watch(presenter: Person, class_of: Any) -> None:
    a, b = class_of(2)
    assert presenter.last("room", lambda m: m["viewers"] == 2) and a.last("room", lambda m: m["viewers"] == 2)
    b.say("leave")
    assert presenter.last("room", lambda m: m["viewers"] == 1) and a.last("room", lambda m: m["viewers"] == 1)
    b.say("configure", task="detect")
    assert b.last("ready", lambda m: m["configured"]["task"] == "detect")      # it is its own master again
    a.leave()
    assert presenter.last("room", lambda m: m["viewers"] == 0)


def test_thirty_viewers_all_come_to_the_newest_picture(presenter: Person, class_of: Any) -> None:
    live_maps(presenter)
    viewers = class_of(30)
    for seq in range(1, 41):
        presenter.show(seq, COLOURS[seq % 3])
    for viewer in viewers:
        for event in ("picture", "result", "explanation"):
            assert viewer.last(event, lambda m: m["seq"] == 40)
        seqs = [m["seq"] for m in viewer.all("picture")]
        assert seqs == sorted(set(seqs)), "a picture came twice, or after a newer one"


def test_without_a_network_it_is_the_same(live: Live) -> None:
    """The sockets of these tests have no wire of ours."""
    presents, watches = Client(live).here(), Client(live).here()
    presents.emit("present", {})
    watches.emit("join", {"code": presents.one("room")["code"]})
    watches.one("joined")
    presents.frame(colour("red"), seq=3)
    assert watches.one("result", seq=3) and watches.one("picture", seq=3)


# -- What a viewer may and may not


@pytest.mark.parametrize("event, fields", [
    ("frame", {"seq": 9, "jpeg": jpeg(colour("red"))}), ("configure", {"task": "detect"}),
    ("edit", {"id": "e", "seq": 1, "mask": b"", "fill": "telea"}), ("present", {})])
def test_a_presenters_events_are_refused(presenter: Person, class_of: Any, event: str,
                                         fields: dict[str, Any]) -> None:
    (viewer,) = class_of(1)
    viewer.say(event, **fields)
    error = viewer.one("error")
    assert error["code"] == "viewer" and "leave the room" in error["message"]
    assert {k: v for k, v in fields.items() if k in ("seq", "id")}.items() >= {
        k: v for k, v in error.items() if k in ("seq", "id")}.items()
    for event in ("tab", "poll", "reveal", "show", "borrow"):
        viewer.say(event, id=event)
        assert viewer.one("error", id=event)["code"] == "viewer"


def test_whoever_is_in_no_room_is_told_so(online: Online) -> None:
    stranger = Person(online[1])
    wanted_of = {"tap": "join", "hand": "join", "lend": "join", "poll": "open", "tab": "open"}
    for event, wanted in wanted_of.items():
        stranger.say(event, id=event)
        error = stranger.one("error", id=event)
        assert error["code"] == "bad_input" and wanted in error["message"]
    stranger.say("leave")
    assert stranger.show(1)["classes"]
    stranger.leave()


def test_a_viewer_asks_its_own_question(presenter: Person, class_of: Any) -> None:
    a, b = class_of(2)
    presenter.show(1, "red")                   # a moving picture, not a kept one
    a.say("explain", id="mine", seq=1, method="grad_cam", target="class:2", model="toy-slow")
    answer = a.one("explanation", "error", id="mine")
    assert answer["target"] == "class:2" and answer["seq"] == 1
    assert not b.all("explanation") and not presenter.all("explanation")
    for seq in range(2, 80):                   # what one has asked about may be asked again, much later
        presenter.show(seq)
    a.say("explain", id="again", seq=1, method="grad_cam", target="class:1")
    assert a.one("explanation", "error", id="again")["target"] == "class:1"
    b.say("explain", id="late", seq=1, method="grad_cam")
    assert b.one("explanation", "error", id="late")["code"] == "gone"


def test_a_viewer_asks_about_the_edited_side(presenter: Person, class_of: Any) -> None:
    (viewer,) = class_of(1)
    presenter.show(1, keep=True)
    viewer.say("explain", id="before", seq=1, method="grad_cam", edited=True)
    assert viewer.one("explanation", "error", id="before")["code"] == "gone"
    presenter.say("edit", id="erase", seq=1, fill="telea", mask=HOLE)
    presenter.one("result", id="erase")
    viewer.say("explain", id="after", seq=1, method="grad_cam", edited=True)
    assert viewer.one("explanation", "error", id="after")["edited"] is True


def test_equal_questions_are_worked_out_once(presenter: Person, class_of: Any) -> None:
    begun = []

    @method("Counted", group="checks", shows="Steps.", cannot="Anything.", tasks=("classify",))
    def toy_counted(look: Any, target: Any) -> Iterator[Explanation]:
        begun.append(target)
        for step in range(1, 11):
            time.sleep(0.02)
            yield Explanation(np.full(look.canvas.size, step, np.float32), progress=step / 10)

    viewers = class_of(10)
    presenter.show(1, keep=True)
    for viewer in viewers:
        viewer.say("explain", id="same", seq=1, method="toy_counted", target="class:0")
    viewers[0].say("stop", id="same")          # the others still want it
    for viewer in viewers[1:]:
        assert until(lambda v=viewer: [e for e in v.all("explanation", id="same") if e["done"]],
                     "the last step")
    assert len(begun) == 1


def test_one_viewer_cannot_ask_for_everything(presenter: Person, class_of: Any) -> None:
    (viewer,) = class_of(1)
    presenter.show(1, keep=True)
    for steps in range(500, 510):
        viewer.say("explain", id=steps, seq=1, method="toy_counting", params={"steps": steps})
    assert viewer.one("error")["code"] == "busy"
    viewer.say("stop")
    viewer.say("explain", id="then", seq=1, method="grad_cam")
    assert viewer.one("explanation", id="then")["done"]


# -- Codes


def test_guessed_codes_are_limited_and_right_ones_too_then(presenter: Person, online: Online) -> None:
    guesser = Person(online[1])
    for n in range(codes.OF_ONE[1] + 1):
        guesser.say("join", code=f"apple-apple-apple-apple{n * 'x'}", id="")
    error = guesser.last("error", lambda m: m["code"] == "too_fast")
    assert "wait a minute" in error["message"] and guesser.all("error")[0]["code"] == "gone"
    guesser.say("join", code=code_of(presenter))
    guesser.say("present", code=code_of(presenter), secret="x")
    until(lambda: len(guesser.all("error")) == codes.OF_ONE[1] + 3, "both to be refused")
    assert not guesser.all("joined", "room")
    guesser.leave()


def test_codes_are_read_as_people_write_them(presenter: Person, online: Online) -> None:
    words = code_of(presenter).split("-")
    viewer = Person(online[1])
    assert viewer.watch("  ".join(words).upper())["code"] == code_of(presenter)
    viewer.leave()
    assert codes.read(7) == codes.read("x" * 200) == codes.read(" - ") == ""


def test_guesses_of_all_addresses_together_are_limited() -> None:
    now = [0.0]
    tries = codes.Tries(lambda: now[0])
    for address in range(codes.OF_ALL[1]):
        assert tries.allowed(f"10.0.0.{address}")
        tries.wrong(f"10.0.0.{address}")
    assert not tries.allowed("192.168.0.1")
    now[0] += 1
    assert tries.allowed("192.168.0.1")
    for _ in range(codes.OF_ONE[1]):
        tries.wrong("192.168.0.1")
        now[0] += 0.1
    assert not tries.allowed("192.168.0.1") and tries.allowed("192.168.0.2")


def test_there_are_only_so_many_rooms_and_viewers(toys: None) -> None:
    for _, url in put_online(rooms=1, viewers=1):
        first, second, third = Person(url), Person(url), Person(url)
        first.say("present")
        code = first.one("room")["code"]
        second.say("present")
        assert second.one("error")["code"] == "busy"
        second.say("join", code=code)
        assert second.one("joined")["code"] == code
        assert third.watch(code)["code"] == "busy"
        first.say("join", code=code)
        assert "leave it" in first.one("error")["message"]
        for person in (first, second, third):
            person.leave()


def test_viewers_take_no_places_of_those_who_show(toys: None) -> None:
    for live, url in put_online(clients=2):
        first = Person(url)
        first.say("present")
        code = first.one("room")["code"]
        viewers = []
        for _ in range(4):
            viewers.append(Person(url))
            assert viewers[-1].watch(code)["code"] == code
        assert live.rooms.viewers == 4 and len(live.sessions) == 5
        for person in (first, *viewers):
            person.leave()


# -- Those who do not read, and those who go


def test_who_does_not_read_is_skipped_to_the_newest(presenter: Person, online: Online, class_of: Any) -> None:
    (reads,) = class_of(1)
    raw = Raw(online[1])
    raw.text(f'42["join",{{"code":"{code_of(presenter)}"}}]')
    raw.until(b'["joined"')
    large = jpeg(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8), 95)
    for seq in range(1, 101):                  # some 12 MB, more than any buffer on the way holds
        presenter.say("frame", seq=seq, jpeg=large)
        presenter.one("result", seq=seq)
    assert reads.last("picture", lambda m: m["seq"] == 100)
    heard = raw.until(b'["picture",{"seq":100,')
    assert heard.count(b'["picture"') < 90
    raw.close()


def test_who_reads_nothing_for_long_is_hung_up_on_and_may_come_back(toys: None) -> None:
    for live, url in put_online(silence=0.5):
        first, raw = Person(url), Raw(url)
        first.one("ready")
        first.say("present")
        code = first.one("room")["code"]
        raw.text(f'42["join",{{"code":"{code}"}}]')
        raw.until(b'["joined"')
        large = jpeg(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8), 95)
        for seq in range(1, 1000):
            first.say("frame", seq=seq, jpeg=large)
            first.one("result", seq=seq)
            if not live.rooms.viewers:
                break
        until(lambda live=live: not live.rooms.viewers, "the silent viewer to be hung up on")
        again = Person(url)
        assert again.watch(code)["code"] == code and again.one("picture")["jpeg"] == large
        for person in (first, again):
            person.leave()
        raw.close()


def test_a_presenter_that_reloads_goes_on(presenter: Person, online: Online, class_of: Any) -> None:
    a, b = class_of(2)
    room = presenter.one("room")
    presenter.show(5, "red")
    assert a.last("picture", lambda m: m["seq"] == 5)
    presenter.leave()
    assert a.last("room", lambda m: not m["here"])
    b.leave()
    wrong, back = Person(online[1]), Person(online[1])
    wrong.say("present", code=room["code"], secret="of another room")
    assert wrong.one("error")["code"] == "gone"
    back.one("ready")
    back.say("present", code=room["code"], secret=room["secret"])
    assert back.one("room")["viewers"] == 1 and a.last("room", lambda m: m["here"])
    back.show(1, "blue")
    assert a.last("picture", lambda m: m["seq"] == 1)
    a.say("explain", id="old", seq=5, method="grad_cam")
    assert a.one("explanation", "error", id="old")["code"] == "gone"
    for person in (wrong, back):
        person.leave()


def test_a_presenter_that_stays_away_ends_its_room(presenter: Person, online: Online, class_of: Any,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "TICK", 0.02)
    monkeypatch.setattr(rooms, "AWAY", 0.05)
    (viewer,) = class_of(1)
    presenter.leave()
    assert "did not come back" in viewer.one("ended")["message"]
    assert viewer.show(3)["classes"]
    viewer.say("join", code=code_of(presenter))
    assert viewer.one("error")["code"] == "gone"


def test_a_presenter_that_leaves_ends_its_room(presenter: Person, class_of: Any) -> None:
    (viewer,) = class_of(1)
    presenter.say("leave")
    assert viewer.one("ended")["code"] == code_of(presenter)
    assert presenter.show(3)["classes"]
    presenter.say("present")
    second = until(lambda: [m for m in presenter.all("room") if "secret" in m][1:], "another room")[0]
    assert second["viewers"] == 0 and second["code"] != code_of(presenter)


def test_nothing_of_a_room_stays(presenter: Person, online: Online, class_of: Any) -> None:
    live, _ = online
    viewers = class_of(3)
    presenter.show(1, keep=True)
    for viewer in viewers:
        viewer.say("explain", id="x", seq=1, method="grad_cam")
        viewer.one("explanation", id="x")
        viewer.leave()
    presenter.leave()
    until(lambda: not live.sessions, "everybody to be gone")
    (room,) = live.rooms._rooms.values()
    live.rooms._close(room, "")
    assert not live.rooms._rooms and not live.rooms._of and not live.rooms._fan._seats
    assert not room.questions._under_way and not live.pictures.bytes
