"""The rooms of the benchmark: which there are, how long each may take, and each in its own process."""
from __future__ import annotations

import importlib
import multiprocessing
import pkgutil
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import bench
from bench import machine, table
from bench.results import Room
from bench.table import Row, line

# Seconds for each room; together, with starting them, a quarter of an hour. A room whose time is over
# measures what is left with the fewest repetitions there are.
BUDGETS = {"start": 40, "live": 15, "cost": 30, "detection": 40, "encode": 70, "path": 90, "caption_cost": 70,
           "rivals": 130, "growth": 50, "whatif": 80, "faith": 75, "captions": 40,
           "room_cost": 30}
OTHERS = 30
QUIET = 0.15                 # of the machine may be busy with something else
PATIENCE = 4.0               # budgets after which a room is ended; with --long there is no such end


def find_rooms() -> list[str]:
    """Every module here that has rows(quick), in the order of the budgets; none is imported for that."""
    folder = Path(bench.__file__).parent
    found = [m.name for m in pkgutil.iter_modules([str(folder)])
             if re.search(r"^def rows\(", (folder / f"{m.name}.py").read_text("utf-8"), re.MULTILINE)]
    return [*(name for name in BUDGETS if name in found), *(name for name in found if name not in BUDGETS)]


def room_of(name: str) -> Any:
    """The module of a room."""
    return importlib.import_module(f"bench.{name}")


def told(name: str, effort: str) -> Iterator[Row]:
    """The rows of a room; with --long those of its long_rows(), where it has them."""
    room, budget = room_of(name), BUDGETS.get(name, OTHERS)
    spent = table.EFFORTS["quick" if effort == "quick" else "usual"]
    table.spend(replace(spent, until=time.perf_counter() + budget))
    longer = getattr(room, "long_rows", None) if effort == "long" else None
    return longer() if longer else room.rows(effort == "quick")


def work(name: str, effort: str, out: Connection) -> None:
    """One room in a process of its own: what another left in memory and in threads changes nothing here."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))     # so that servers and browsers are ended too
    try:
        for row in told(name, effort):
            out.send(row)
    except Exception as problem:               # one room that cannot be measured must not hide the others
        out.send(f"{type(problem).__name__}: {problem}")
    out.send(None)


def measure(name: str, effort: str, say: Callable[[str], None] = print) -> Room:
    """A room's rows, printed as they come; a room that hangs is ended."""
    room = Room(name, BUDGETS.get(name, OTHERS), busy=machine.busy())
    if room.busy > QUIET:
        say(f"       (other work takes {room.busy:.0%} of this machine: measure again when it is quiet)")
    start = time.monotonic()
    inbox, outbox = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=work, args=(name, effort, outbox))
    process.start()
    outbox.close()
    end = float("inf") if effort == "long" else start + PATIENCE * room.budget
    try:
        while True:
            if not inbox.poll(max(0.0, min(end - time.monotonic(), 3600.0))):
                if time.monotonic() < end:
                    continue
                room.problem = f"not over after {PATIENCE:g} times its {room.budget:g} s"
                break
            said = inbox.recv()
            if said is None:
                break
            if isinstance(said, str):
                room.problem = said
            else:
                room.rows.append(said)
                say(line(said))
    except EOFError:
        room.problem = "its process ended without a word"
    process.join(10 if not room.problem else 0)
    process.terminate()
    process.join(30)
    room.seconds = time.monotonic() - start
    if room.problem:
        say(f"SHORT  {name} ended early: {room.problem}")
    say(f"       ({room.seconds:.0f} s of {room.budget:g})")
    return room
