"""Commands pickle, and the same command gives the same messages in another process."""
from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from stand_in import jpeg, png

from explainers import parse
from serving import work
from serving.cache import Cache
from serving.engine import Command, Edit, Edits, Explain, See, Wish
from serving.settings import Settings
from serving.work import Work
from tests.conftest import ROOT

CLASSIFY = Wish("classify", "efficientnet-lite0", method="grad_cam")
DETECT = Wish("detect", "yolov3-tiny", {"threshold": 0.3, "nms": 0.35}, "odam")

CHILD = """
import pickle, sys
from serving import work
commands = pickle.load(sys.stdin.buffer)
pickle.dump([list(work.run(command)) for command in commands], sys.stdout.buffer)
"""


@pytest.fixture(scope="module", autouse=True)
def plain() -> Iterator[None]:
    """All in torch, here and in other processes: what is compiled meanwhile differs in the seventh digit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEEWHY_COMPILED", "0")
        work.here.cache_clear()
        yield
    work.here.cache_clear()


@pytest.fixture(scope="module")
def commands(photographs: dict[str, np.ndarray]) -> list[Command]:
    """Every kind of command, with and without edits, seeds, checks and mistakes."""
    cat, bus = jpeg(photographs["cat"]), jpeg(photographs["bus"][::2, ::2])
    hole = np.zeros(photographs["cat"].shape[:2], bool)
    hole[100:160, 150:260] = True
    telea, patches = Edits(png(hole), "telea"), Edits(png(hole), "patch_match", {"seed": 3})
    rise = replace(CLASSIFY, method="rise", params={"masks": 20, "seed": 7})
    return [
        See(cat, CLASSIFY), See(cat, replace(CLASSIFY, method=None), keep=True), See(bus, DETECT),
        See(cat, replace(CLASSIFY, target=parse("class:5000", "classify"))), See(cat[:900], CLASSIFY),
        Explain(cat, replace(CLASSIFY, target=parse("class:281/versus:285", "classify"))),
        Explain(cat, rise), Explain(cat, CLASSIFY, telea), Explain(cat, CLASSIFY, check="curves"),
        Explain(cat, replace(CLASSIFY, method="layer_cam"), check="sanity"),
        Explain(bus, replace(DETECT, target=parse("box:0/side:left", "detect"))),
        Explain(bus, replace(DETECT, target=parse("box:99", "detect"))),
        Explain(cat, replace(CLASSIFY, method="no_such")),
        Edit(cat, CLASSIFY, telea), Edit(cat, CLASSIFY, patches), Edit(cat, CLASSIFY, None),
        Edit(cat, CLASSIFY, Edits(b"no mask", "telea")),
    ]


def untimed(value: Any) -> Any:
    """Messages without what a clock says."""
    if isinstance(value, dict):
        return {k: untimed(v) for k, v in value.items() if k != "ms"}
    return [untimed(v) for v in value] if isinstance(value, list | tuple) else value


def test_every_command_gives_the_same_messages_in_a_second_process(commands: list[Command]) -> None:
    assert {type(c) for c in commands} == set(get_args(Command))
    assert pickle.loads(pickle.dumps(commands)) == commands
    child = subprocess.run([sys.executable, "-c", CHILD], cwd=ROOT, input=pickle.dumps(commands),
                           capture_output=True, timeout=300, check=False)
    assert child.returncode == 0, child.stderr.decode()[-3000:]
    there: list[Any] = pickle.loads(child.stdout)
    for command, far in zip(commands, there, strict=True):
        near = list(work.run(command))
        assert untimed(near) == untimed(far), f"{type(command).__name__} {command.wish}"
    kinds = [event for messages in there for event, _ in messages]
    assert kinds.count("error") == 5 and {"result", "explanation"} <= set(kinds)


def test_what_is_remembered_only_saves_time(commands: list[Command]) -> None:
    """Without any memory the answers are the same, message by message."""
    forgetful = Work(replace(Settings(), looks_mb=0))
    for command in (c for c in commands if isinstance(c, Explain | Edit)):
        assert untimed(list(forgetful.run(command))) == untimed(list(Work(Settings()).run(command)))
    assert len(forgetful.remembered) == 0


def test_a_finished_explanation_is_worked_out_once(commands: list[Command],
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Work(Settings())
    rise = next(c for c in commands if isinstance(c, Explain) and c.wish.method == "rise")
    first = list(mine.run(rise))
    monkeypatch.setattr("explainers.steps", None)
    assert len(first) > 1 and untimed(list(mine.run(rise))) == untimed(first[-1:])


def test_the_memory_keeps_to_its_bound_and_the_least_recently_used_goes() -> None:
    cache = Cache(1000)
    for name in "abc":
        cache.put(name, np.zeros(300, np.uint8))
    assert cache.get("a") is not None and cache.bytes == 900
    cache.put("d", np.zeros(300, np.uint8))
    assert cache.get("b") is None and cache.get("a") is not None and cache.bytes == 900
    cache.put("whale", np.zeros(1001, np.uint8))
    assert cache.get("whale") is None and cache.bytes == 900
    cache.put("d", np.zeros(10, np.uint8))
    assert cache.bytes == 610
    cache.forget(lambda value: value.size == 10)
    assert cache.get("d") is None and cache.bytes == 600


def test_64_visitors_with_8_pictures_each_take_no_more_than_the_bound(
        photographs: dict[str, np.ndarray]) -> None:
    """Each look at 810x720 holds some three megabytes; 64 visitors' could once reach 37 GB."""
    mine = Work(replace(Settings(), looks_mb=40))
    frame = photographs["bus"][:720].copy()
    for n in range(30):
        frame[:8, :8] = 8 * n
        (event, _), *_ = mine.run(See(jpeg(frame), replace(CLASSIFY, method=None), keep=True))
        assert event == "result" and mine.remembered.bytes <= 40_000_000
    assert 5 < len(mine.remembered) < 30


def test_models_that_weigh_too_much_are_put_away_and_come_back(photographs: dict[str, np.ndarray]) -> None:
    mine = Work(replace(Settings(), models_mb=40))
    cat = jpeg(photographs["cat"])
    for wish in (CLASSIFY, DETECT, CLASSIFY):
        (event, said), *_ = mine.run(See(cat, replace(wish, method=None), keep=True))
        assert event == "result" and said["model"] == wish.model
        assert mine.shelf.here(wish.model) is not None
    assert mine.shelf.here("yolov3-tiny") is None, "the two together weigh more than 40 MB"
    assert len(mine.remembered) == 1, "its looks went with it"


def test_a_model_in_use_is_not_put_away(photographs: dict[str, np.ndarray]) -> None:
    mine = Work(replace(Settings(), models_mb=10))
    rise = Explain(jpeg(photographs["cat"]), replace(CLASSIFY, method="rise", params={"masks": 40}))
    under_way = mine.run(rise)
    next(under_way)
    list(mine.run(See(rise.picture, replace(DETECT, method=None))))
    assert mine.shelf.here("efficientnet-lite0") is not None
    assert list(under_way)[-1][1]["done"]


@pytest.mark.parametrize("value", ["many", "-3", "0", "1.5", "²"])
def test_a_bound_that_is_none_gets_a_sentence(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEWHY_LOOKS_MB", value)
    with pytest.raises(ValueError, match="SEEWHY_LOOKS_MB must be a whole number of megabytes"):
        Settings()


def test_the_bounds_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEWHY_LOOKS_MB", "64")
    monkeypatch.setenv("SEEWHY_MODELS_MB", "300")
    assert (Settings().looks_mb, Settings().models_mb) == (64, 300)
    assert pickle.loads(pickle.dumps(Settings())) == Settings()


def test_nothing_of_the_front_is_imported_by_the_work() -> None:
    """work.py and all it needs know no client, no socket and no queue."""
    said = subprocess.run([sys.executable, "-c", "import sys, serving.work; print(*sys.modules)"], cwd=ROOT,
                          capture_output=True, text=True, check=True).stdout.split()
    front = {*(f"serving.{name}" for name in ("session", "events", "scheduler", "wire", "local")),
             "flask", "socketio", "engineio"}
    assert not front & set(said)
    assert Path(work.__file__).parent.name == "serving"
