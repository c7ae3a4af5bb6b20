"""python -m bench [ROOM ...] [--quick | --long]: every claim about speed and truth, measured on this machine.

All of it takes a quarter of an hour on two cores; what --long adds (faithfulness on 300 photographs, captions
of 1,000) takes hours. A run of all rooms writes bench/results.json and docs/bench.png.
"""
from __future__ import annotations

import argparse
import sys

from bench import machine, results
from bench.rooms import find_rooms, measure
from bench.table import summary


def main(arguments: list[str] | None = None) -> int:
    """Print the table; falling short of a goal is a figure to read, not an error."""
    names = find_rooms()
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"of {', '.join(names)}; without any, all")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: rougher figures, sooner")
    parser.add_argument("--long", action="store_true", help="also what takes hours")
    asked = parser.parse_args(arguments)
    for name in asked.rooms:
        if name not in names:
            parser.error(f"there is no room {name!r}; there are {', '.join(names)}")
    if asked.quick and asked.long:
        parser.error("--quick and --long exclude each other")
    effort = "quick" if asked.quick else "long" if asked.long else "usual"
    print(machine.sentence(machine.described()))
    rooms = []
    for name in asked.rooms or names:
        print(f"\n{name}", flush=True)
        rooms.append(measure(name, effort, lambda text: print(text, flush=True)))
    took = sum(room.seconds for room in rooms)
    print(f"\n{summary(row for room in rooms for row in room.rows)}\n{took / 60:.1f} minutes")
    if not asked.rooms and not asked.quick:
        results.write(rooms, effort)
        print("written: bench/results.json and docs/bench.png")
    return int(any(room.problem for room in rooms))


if __name__ == "__main__":
    sys.exit(main())
