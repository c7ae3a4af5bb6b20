"""What a run of all rooms leaves behind, and that no room can spoil it."""
from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import cv2
import pytest

from bench import __main__ as bench_main
from bench import machine, results, rooms
from bench.results import Room, share
from bench.table import Ratio, Row, at_least, at_most

ROWS = [at_most("a / b", Ratio([0.8, 0.9, 1.0]), 1.05, "a note"), at_least("fps", 1.2, 1.5),
        Row("deletion", "0.1 0.5"), at_most("endless", float("inf"), 2.0),
        Row("ours minus theirs", 0.001, ">= -0.002", True)]
ROOMS = [Room("cost", 40, ROWS, 12.3), Room("path", 90, [], 1.0, "RuntimeError: no Chromium")]


def test_the_shape_of_the_file(tmp_path: Path) -> None:
    results.write(ROOMS, "usual", tmp_path / "results.json", tmp_path / "bench.png")
    text = (tmp_path / "results.json").read_text()
    said = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", said["date"])
    assert said["effort"] == "usual" and said["seconds"] == 13
    assert said["rooms"]["path"] == {"seconds": 1, "budget": 90, "busy": 0.0, "rows": [],
                                     "problem": "RuntimeError: no Chromium"}
    first, second, third, fourth, _ = said["rooms"]["cost"]["rows"]
    assert first == {"what": "a / b", "measured": 0.9, "interval": [0.8, 1.0], "pairs": 3, "goal": "<= 1.05",
                     "met": True, "decided": True, "note": "a note"}
    assert second == {"what": "fps", "measured": 1.2, "goal": ">= 1.5", "met": False, "decided": True}
    assert third == {"what": "deletion", "measured": "0.1 0.5"} and fourth["measured"] == "inf"


def test_the_machine_is_described_and_not_named() -> None:
    said = machine.described()
    assert {"processor", "cores", "memory GB", "system", "python", "torch", "onnxruntime"} <= said.keys()
    text = json.dumps(said) + machine.sentence(said)
    assert socket.gethostname() not in text and str(Path.home()) not in text and "/" not in said["system"]
    assert said["cores"] >= 1 and said["memory GB"] >= 1


def test_shares_of_a_goal() -> None:
    assert share(ROWS[0]) == pytest.approx((0.9 / 1.05, 0.8 / 1.05, 1.0 / 1.05))
    assert share(ROWS[1]) == pytest.approx((1.25, 1.25, 1.25))
    assert share(ROWS[2]) is None and share(ROWS[4]) is None and share(Row("x", -1.0, ">= 2", False)) is None


def test_the_picture_tells_met_from_short_without_colour(tmp_path: Path) -> None:
    sheet = results.drawn([at_most("good", 0.9, 1.0), at_most("bad", 0.9, 0.7), *ROWS[:3]])
    (axes,) = sheet.axes
    assert [bar.get_hatch() for bar in axes.patches] == [None, "////", None, "////"]
    assert [text.get_text().startswith("SHORT") for text in axes.texts] == [False, True, False, True]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["good", "bad", "a / b", "fps"]
    ends = [bar.get_extents().x1 for bar in axes.patches]
    assert sorted(ends) == [ends[2], ends[0], ends[3], ends[1]]            # 0.86, 0.9, 1.25, 1.29 of the goal
    sheet.savefig(tmp_path / "bench.png")
    picture = cv2.imread(str(tmp_path / "bench.png"))
    assert picture is not None and picture.shape[1] == 1100


def test_every_room_is_found_and_has_a_budget_within_a_quarter_of_an_hour() -> None:
    names = rooms.find_rooms()
    assert {"cost", "live", "detection", "faith", "whatif", "rivals", "growth"} <= set(names)
    assert sum(rooms.BUDGETS.get(name, rooms.OTHERS) for name in names) <= 900
    assert not {"table", "browser", "results", "machine", "__main__"} & set(names)


def test_a_room_that_fails_is_told_and_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        @staticmethod
        def rows(quick: bool):
            yield Row("first", 1.0)
            raise RuntimeError("no Chromium")

    monkeypatch.setattr(rooms, "room_of", lambda name: Broken)
    monkeypatch.setattr(rooms.signal, "signal", lambda *_: None)
    sent: list[object] = []

    class Out:
        send = staticmethod(sent.append)

    rooms.work("broken", "quick", Out())  # type: ignore[arg-type]
    assert sent == [Row("first", 1.0), "RuntimeError: no Chromium", None]


def test_the_long_way_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Both:
        @staticmethod
        def rows(quick: bool):
            return iter([Row("quick" if quick else "usual", 1.0)])

        @staticmethod
        def long_rows():
            return iter([Row("long", 1.0)])

    monkeypatch.setattr(rooms, "room_of", lambda name: Both)
    for effort in ("quick", "usual", "long"):
        assert [row.what for row in rooms.told("x", effort)] == [effort]


def test_what_cannot_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong, words in ((["nonsense"], "there are"), (["--quick", "--long"], "exclude")):
        with pytest.raises(SystemExit) as ended:
            bench_main.main(wrong)
        assert ended.value.code == 2 and words in capsys.readouterr().err
