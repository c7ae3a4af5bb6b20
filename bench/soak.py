"""Honest use for as long as one likes: does the server's memory or its answer's time grow?

    python -m bench.soak [MINUTES]

Live pictures of all three tasks in turn, stills kept and explained, things erased. The figures go into
bench/soak.json, which docs/RELIABILITY.md is made of too.
"""
from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import socketio

from bench.browser import free_port, photograph
from serving.frames import encode_jpeg

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "bench" / "soak.json"
TASKS = {"classify": "grad_cam", "detect": "odam", "caption": "word_maps"}
WARM = 0.25                  # of the time, in which what is remembered fills up
PACE = 0.1                   # seconds between two pictures: half of what a slow camera gives


class Page:
    """A client that waits for each answer."""

    def __init__(self, address: str):
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.io = socketio.Client(reconnection=False)
        for event in ("result", "explanation", "error", "dropped"):
            self.io.on(event, lambda said, event=event: self.heard.append((event, said)))
        for _ in range(200):
            try:
                self.io.connect(address, transports=["websocket"])
                return
            except Exception:                  # not there yet
                time.sleep(0.1)

    def say(self, event: str, **fields: Any) -> None:
        self.heard.clear()
        self.io.emit(event, fields)

    def wait(self, *events: str, done: bool = False) -> float:
        """Seconds until one of them, a finished one if need be, is heard."""
        start = time.perf_counter()
        while time.perf_counter() - start < 60:
            if any(event in events and (not done or said.get("done", True)) for event, said in self.heard):
                return time.perf_counter() - start
            time.sleep(0.001)
        raise TimeoutError(f"no {' or '.join(events)} came within a minute")


def soak(minutes: float) -> dict[str, float]:
    """Megabytes a minute and the last third's answer time over the first's, once it is warm."""
    port, start = free_port(), time.monotonic()
    server = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=ROOT, env=os.environ,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    samples: list[tuple[float, float]] = []
    trips: list[float] = []
    pictures = [encode_jpeg(photograph(name)) for name in ("cat", "bus", "coffee")]
    try:
        page, seq, turn = Page(f"http://127.0.0.1:{port}"), 0, 0
        while (spent := (time.monotonic() - start) / 60) < minutes:
            task, turn = list(TASKS)[turn % 3], turn + 1
            page.say("configure", task=task, method=TASKS[task])
            for _ in range(20):
                seq += 1
                page.say("frame", seq=seq, jpeg=pictures[seq % 3])
                trip = page.wait("result", "error")
                if task == "classify" and spent > WARM * minutes:
                    trips.append(trip)
                time.sleep(PACE)
            seq += 1
            page.say("frame", seq=seq, jpeg=pictures[seq % 3], keep=True)
            page.wait("result", "error")
            page.say("explain", id=seq, seq=seq, method="saliency")
            page.wait("explanation", "error", done=True)
            if spent > WARM * minutes:
                samples.append((spent, resident(server.pid)))
        page.io.disconnect()
    finally:
        server.kill()
        server.wait()
    at, megabytes = np.array(samples).T
    third = len(trips) // 3
    return {"minutes": minutes, "megabytes": float(megabytes[-1]),
            "megabytes_a_minute": float(np.polyfit(at, megabytes, 1)[0]),
            "answers_last_over_first": statistics.median(trips[-third:]) / statistics.median(trips[:third])}


def resident(pid: int) -> float:
    """Megabytes of a process; Linux only."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


def told() -> str:
    """The last soak in words; empty where there was none."""
    try:
        found = json.loads(OUT.read_text("utf-8"))
    except (OSError, ValueError):
        return ""
    return (f"{found['minutes']:g} minutes: {found['megabytes_a_minute']:+.2f} MB a minute at "
            f"{found['megabytes']:.0f} MB, in the last third answers took "
            f"{found['answers_last_over_first']:.2f} times as long as in the first")


if __name__ == "__main__":
    figures = soak(float(sys.argv[1]) if len(sys.argv) > 1 else 10)
    OUT.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    print(told())
