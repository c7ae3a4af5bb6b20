"""A server that is ended tells everybody, answers what is under way, and goes; under gunicorn too."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import Visitor, free_port, started, whole
from raw import Memory, Raw
from stand_in import ANSWERS, colour, jpeg, until
from test_wire import UPGRADE, asked

from serving import events, scheduler

TOKEN = "a-token-for-tests"
BUDGET = 5.0                                   # seconds that ending may take


def ended(process: subprocess.Popen[str], number: int) -> float:
    """Send the signal; the seconds until the process is gone, with code 0."""
    start = time.monotonic()
    process.send_signal(number)
    assert process.wait(30) == 0
    return time.monotonic() - start


def test_what_closing_waits_for_fits_into_the_time() -> None:
    assert scheduler.CLOSING + events.GOODBYE < BUDGET


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_everybody_is_told_and_what_is_under_way_is_answered(tmp_path: Path, number: int) -> None:
    log = tmp_path / "log"
    with whole(log) as (process, url):
        callers = [Visitor(url) for _ in range(4)]
        callers[0].frame(1, jpeg(colour("red")), keep=True)
        callers[0].io.emit("explain", {"id": "long", "seq": 1, "method": "toy_sleep",
                                       "params": {"seconds": 1.0}})
        time.sleep(0.3)                        # it sleeps now, and the frames that come next wait
        for caller in callers:
            caller.io.emit("frame", {"seq": 7, "jpeg": jpeg(colour("blue"))})
            caller.io.call("stop", {"id": "nothing"}, timeout=10)      # acknowledged: the frame has come
        idle = Raw(url, join=False)
        assert ended(process, number) < 3 * BUDGET
        for caller in callers:
            assert "closing" in caller.one("server_closing")["message"]
            assert caller.one(*ANSWERS, seq=7)
            until(lambda c=caller: not c.io.connected, "the end")       # type: ignore[misc]
        assert callers[0].one("explanation", id="long")["done"]
        idle.close()
    said = log.read_text()
    assert "Traceback" not in said and "WARNING" not in said and said.endswith("closing\n")


def test_a_step_that_does_not_end_keeps_nobody(tmp_path: Path) -> None:
    with whole(tmp_path / "log") as (process, url):
        caller = Visitor(url)
        caller.frame(1, jpeg(colour("red")), keep=True)
        caller.io.emit("explain", {"id": 1, "seq": 1, "method": "toy_sleep", "params": {"seconds": 60.0}})
        time.sleep(0.3)
        assert ended(process, signal.SIGTERM) < 3 * BUDGET
        assert caller.one("server_closing")


def test_it_can_be_ended_while_the_libraries_come(tmp_path: Path) -> None:
    with whole(tmp_path / "log") as (process, url):
        early = Visitor(url, wait=False)
        assert ended(process, signal.SIGTERM) < 3 * BUDGET
        assert early.one("server_closing")
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_holding_the_interpreter_costs_nobody_the_connection(tmp_path: Path) -> None:
    """Thirty seconds between two signs of life, in a world that is fifty times as fast."""
    scale = 1 / 50
    with whole(tmp_path / "log", wanted={"pings": scale}) as (_, url):
        holder, other = Visitor(url), Visitor(url)
        holder.frame(1, jpeg(colour("red")), keep=True)
        for turn in range(4):                  # at another moment between two pings each time
            holder.io.emit("explain", {"id": turn, "seq": 1, "method": "toy_hold",
                                       "params": {"seconds": 30 * scale}})
            holder.one("explanation", id=turn, done=True)
            time.sleep(0.15)
        for caller in (holder, other):
            assert caller.io.connected and caller.frame(9, jpeg(colour("blue")))["classes"]
        assert json.loads(asked(url, "/health").read())["clients"] == 2


GUNICORN = ("-m", "gunicorn", "-w", "1", "--threads", "100")


@pytest.mark.skipif(sys.platform != "linux", reason="gunicorn is for Linux here")
def test_gunicorn_serves_the_page_the_socket_and_its_limits(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, *GUNICORN, "--bind", f"127.0.0.1:{port}", "app:create_app()"]
    with started(command, port, log, SEEWHY_TOKEN=TOKEN, SEEWHY_CACHE=str(tmp_path)) as process:
        url = f"http://127.0.0.1:{port}"
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        until(lambda: asked(url, "/health/ready", **bearer).status == 200, "the first model", 60)
        assert asked(url, "/").status == 401 and b"Seewhy" in asked(url, "/", **bearer).read()
        callers = [Visitor(url, **bearer) for _ in range(3)]
        for caller in callers:
            assert caller.frame(1, jpeg(colour("red", 240, 320)))["classes"]
        assert asked(url, "/socket.io/?EIO=4&transport=websocket", **UPGRADE).status == 401
        worker = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        memory, line = Memory(worker), Raw(url, **bearer)
        line.frame(b"", length=200_000_000)
        assert line.flood(bytes(1 << 20)) < 50_000_000 and memory.growth() < 20
        until(lambda: asked(url, "/health", **bearer).read() == b'{"clients":3,"status":"ok"}\n', "its end")
        assert ended(process, signal.SIGTERM) < 3 * BUDGET
        for caller in callers:
            assert caller.one("server_closing")
    said = log.read_text()
    assert "Traceback" not in said and TOKEN not in said and "ERROR" not in said
    assert not Path(f"/proc/{worker}").exists() or os.getpgid(worker) != os.getpgid(0)
