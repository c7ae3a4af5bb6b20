"""What a person at a real page waits for: the server as its own process, Chromium, a socket of its own."""
from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from serving import presets

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# A connection as the page makes it, without a map until one is asked for; `bytes` and `once` are what the
# scripts of the rooms are written with.
CONNECTED = """async (given) => {
  const { io } = await import('/vendor/socket.io.esm.min.js');
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const socket = io({ transports: ['websocket'], forceNew: true });
  const once = (event) => new Promise((done) => { socket.once(event, done); });
  await once('ready');
  socket.emit('configure', { task: given.task, method: null });
  let ready = await once('ready');
  while (ready.configured.method !== null) ready = await once('ready');
  const trips = [];
  const timed = async (event, message) => {
    const start = performance.now();
    socket.emit(event, message);
    const result = await once('result');
    trips.push([performance.now() - start, result.ms]);
  };
  %s
  socket.disconnect();
  return trips;
}"""
# One frame after the other, as the page sends them.
FRAMES = """const jpeg = bytes(given.jpeg);
  for (let seq = 1; seq <= given.count; seq += 1) await timed('frame', { seq, jpeg });"""
WARMING = 5

Trips = list[tuple[float, dict[str, float]]]


def photograph(name: str) -> np.ndarray:
    """A preset as HxWx3 uint8 RGB."""
    path = presets.path(name)
    assert path is not None, f"the package with the preset {name} is not installed"
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB))


def camera(frame: np.ndarray) -> str:
    """What the page sends of a frame, as text for a script."""
    small = cv2.resize(frame, (640, 480), interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
    return base64.b64encode(data).decode()


@contextmanager
def page() -> Iterator[Callable[[str, dict[str, Any]], Trips]]:
    """A page in Chromium: run(script, what it is given) returns milliseconds waited and the server's own."""
    from playwright.sync_api import sync_playwright

    with served() as address, sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        shown = running.new_page()
        shown.goto(f"{address}/static/icon.svg")               # same origin, and nothing else that runs
        yield lambda script, given: shown.evaluate(CONNECTED % script, given)
        running.close()


def chromium() -> str:
    """Where this machine's Chromium is."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise RuntimeError("there is no Chromium to measure with; `make bench` installs it")
    return found


def frame_trips(frame: np.ndarray, task: str, repeats: int) -> Trips:
    """Round trips of one picture, the first few left out."""
    with page() as run:
        return run(FRAMES, {"task": task, "jpeg": camera(frame), "count": repeats + WARMING})[WARMING:]


def of_model(ms: dict[str, float]) -> float:
    """The milliseconds that the model itself took."""
    return ms["prepare"] + ms["encode"] + ms["predict"]


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served() -> Iterator[str]:
    """The real server in its own process, on a free port."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=ROOT,
                               stdout=subprocess.DEVNULL)
    address = f"http://localhost:{port}"
    try:
        for _ in range(600):
            try:
                assert json.load(urllib.request.urlopen(f"{address}/health"))["status"] == "ok"
                break
            except urllib.error.URLError:
                assert process.poll() is None, "the server ended before it could be asked"
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(30)
