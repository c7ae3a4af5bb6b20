"""python -m bench [ROOM ...] [--quick]: every claim about speed and truth, measured now, on this machine."""
from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import time
from collections.abc import Callable, Iterator

import bench
from bench.table import Row, line, summary

Rows = Callable[[bool], Iterator[Row]]


def find_rooms() -> dict[str, Rows]:
    """Every module here that has rows(quick)."""
    names = [m.name for m in pkgutil.iter_modules(bench.__path__) if m.name not in ("__main__", "table")]
    found = {name: getattr(importlib.import_module(f"bench.{name}"), "rows", None) for name in names}
    return {name: rows for name, rows in found.items() if rows is not None}


def main(arguments: list[str] | None = None) -> int:
    """Print the table; falling short of a goal is a figure to read, not an error."""
    rooms = find_rooms()
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"of {', '.join(rooms)}; without any, all")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: rougher figures, sooner")
    asked = parser.parse_args(arguments)
    for name in asked.rooms:
        if name not in rooms:
            parser.error(f"there is no room {name!r}; there are {', '.join(rooms)}")
    told: list[Row] = []
    broken = 0
    for name in asked.rooms or rooms:
        start = time.monotonic()
        print(f"\n{name}", flush=True)
        try:
            for row in rooms[name](asked.quick):
                told.append(row)
                print(line(row), flush=True)
        except Exception as problem:           # one room that cannot be measured must not hide the others
            broken += 1
            print(f"SHORT  {name} ended early: {type(problem).__name__}: {problem}", flush=True)
        print(f"       ({time.monotonic() - start:.0f} s)", flush=True)
    print(f"\n{summary(told)}")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
