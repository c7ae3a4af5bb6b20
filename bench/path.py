"""The path of a frame: from the camera to the model and back, by the page itself in a browser of its own."""
from __future__ import annotations

import base64
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import cv2
import numpy as np
import psutil

from bench import browser
from bench.browser import of_model, photograph
from bench.machine import cores
from bench.table import Ratio, Row, at_least, at_most, decided
from serving.frames import decode

WIDTH, HEIGHT, RATE = 1280, 720, 60            # the camera's; it must not be what is measured
SETTLING = 3.0                                 # seconds in which the page learns the pace
WINDOWS = 8                                    # into which what was seen is divided, a ratio each
TASKS = ("classify", "detect", "caption")
READY = "import('/static/js/state.js').then(({ state: s }) => s.connection === 'open' && !s.configuring)"
# What the page itself does, live; an age is measured at the repaint that shows a picture with its map, or the
# answer where there is none.
WATCH = """async (seconds) => {
  const { on } = await import('/static/js/bus.js');
  const { figures } = await import('/static/js/live.js');
  const seen = { results: [], maps: [], ages: [] };
  const endings = [
    on('result', ({ ms, roundTrip }) => seen.results.push({ at: performance.now(), ms, roundTrip })),
    on('explanation', ({ ms }) => seen.maps.push({ at: performance.now(), ms })),
    on('explained', () => {
      const { taken } = figures;
      requestAnimationFrame(() => seen.ages.push({ at: performance.now(), ms: performance.now() - taken }));
    })];
  await new Promise((over) => { setTimeout(over, seconds * 1000); });
  endings.forEach((stop) => stop());
  return seen;
}"""
# An animation of the page's own, beside; apart from the rest, since it costs something itself.
REPAINTS = """async (seconds) => {
  const seen = [], end = performance.now() + seconds * 1000;
  await new Promise((over) => {
    const repaint = (now) => { seen.push(now); if (now < end) requestAnimationFrame(repaint); else over(); };
    requestAnimationFrame(repaint);
  });
  return seen;
}"""
# A client that costs nothing beside: one picture again and again, two under way.
STREAM = """const seen = { results: [], maps: [] };
  const method = ready.preferred[given.task];
  if (ready.methods.find(({ name }) => name === method)?.live) {
    socket.emit('configure', { method });
    while (ready.configured.method === null) ready = await once('ready');
  }
  const jpeg = bytes(given.jpeg), end = performance.now() + given.seconds * 1000;
  let seq = 0;
  const send = () => socket.emit('frame', { seq: seq += 1, jpeg });
  await new Promise((over) => {
    socket.on('explanation', ({ ms }) => seen.maps.push({ at: performance.now(), ms }));
    socket.on('result', ({ ms }) => {
      seen.results.push({ at: performance.now(), ms });
      if (performance.now() < end) send(); else over();
    });
    send();
    send();
  });
  trips.push(seen);"""
# One picture to our server and the same bytes to an echo, by turns.
BESIDE = """const other = io(given.echo, { transports: ['websocket'], forceNew: true });
  await new Promise((done) => other.once('connect', done));
  const jpeg = bytes(given.jpeg);
  const echoed = async () => {
    const start = performance.now();
    other.emit('frame', { seq: 1, jpeg });
    await new Promise((done) => other.once('echo', done));
    return performance.now() - start;
  };
  for (let seq = 1; seq <= given.count; seq += 1) {
    const first = seq % 2 ? await echoed() : null;
    await timed('frame', { seq, jpeg });
    trips.at(-1)[1].echo = first ?? await echoed();
  }
  other.disconnect();"""
# On the same socket as ours: as its libraries come, small packets wait for each other, and it takes 40 ms.
ECHO = """
import sys
from flask import Flask
from flask_socketio import emit
from serving.settings import Settings
from serving.wire import connected
app = Flask("echo")
io = connected(app, Settings(origins=(sys.argv[2],)))
io.on_event("frame", lambda m: emit("echo", m))
io.run(app, "127.0.0.1", int(sys.argv[1]), allow_unsafe_werkzeug=True)
"""

Seen = dict[str, Any]


def rows(quick: bool = False) -> Iterator[Row]:
    """How busy a live page keeps the model, how old what it shows is, and what the way costs."""
    seconds = 5.0 if quick else 12.0
    with visitor() as (address, context):
        live = LivePage(address, context)
        for task in TASKS:
            seen = live.look(task, seconds)
            yield busy(seen, task)
            yield age(seen, task)
            yield repaints(live.page.evaluate(REPAINTS, seconds / 3), task)
        live.page.close()
        shown = context.new_page()
        shown.goto(f"{address}/static/icon.svg")               # same origin, and nothing else that runs
        for task in TASKS:
            yield unwatched(shown, task, seconds / 4)
        yield served_overhead(address, shown, 3 if quick else 12)


def film(file: Path) -> None:
    """What the camera sees: a photograph that moves a little, uncompressed: reading it costs little."""
    picture = cv2.resize(photograph("zidane"), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    with file.open("wb") as out:
        out.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{RATE}:1 Ip A1:1 C420jpeg\n".encode())
        for step in range(12):
            moved = np.roll(picture, 4 * abs(step - 6), axis=1)
            out.write(b"FRAME\n" + cv2.cvtColor(moved, cv2.COLOR_RGB2YUV_I420).tobytes())


@contextmanager
def visitor() -> Iterator[tuple[str, Any]]:
    """The server's address, and a browser whose camera shows the film and that may talk to an echo too."""
    from playwright.sync_api import sync_playwright

    with (tempfile.TemporaryDirectory() as folder, browser.served() as address,
          sync_playwright() as playwright):
        camera = Path(folder) / "camera.y4m"
        film(camera)
        running = playwright.chromium.launch(executable_path=browser.chromium(), args=[
            "--no-sandbox", "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-video-capture={camera}"])
        context = running.new_context(viewport={"width": 1280, "height": 720}, bypass_csp=True)
        context.grant_permissions(["camera"], origin=address)
        yield address, context
        running.close()


class LivePage:
    """The page with its camera on."""

    def __init__(self, address: str, context: Any):
        self.page = context.new_page()
        self.page.goto(address)

    def wait(self) -> None:
        """Until what was asked for is here."""
        end = time.monotonic() + 60
        while not self.page.evaluate(READY):
            if time.monotonic() > end:
                raise TimeoutError("the page was not ready after a minute")
            self.page.wait_for_timeout(100)

    def look(self, task: str, seconds: float) -> Seen:
        """What WATCH sees, once the page has learnt the pace."""
        self.wait()
        if self.page.get_attribute(f"#tab-{task}", "aria-selected") != "true":
            self.page.click(f"#tab-{task}")
            self.page.wait_for_timeout(200)
            self.wait()
        if self.page.get_attribute("#camera", "aria-pressed") != "true":
            self.page.click("#camera")
        self.page.wait_for_timeout(SETTLING * 1000)
        psutil.cpu_percent()
        seen: Seen = self.page.evaluate(WATCH, seconds)
        seen["load"] = psutil.cpu_percent() / 100
        if len(seen["results"]) < 2 * WINDOWS:
            raise RuntimeError(f"only {len(seen['results'])} live results in {seconds:g} s")
        return seen


def windows(entries: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Neighbours in time together; the first of a window is the last of the one before."""
    size = max(2, (len(entries) - 1) // WINDOWS)
    return [entries[at:at + size + 1] for at in range(0, len(entries) - size, size)]


def model_time(seen: Seen) -> float:
    """Milliseconds of the model for one picture and its map."""
    return statistics.median(of_model(r["ms"]) for r in seen["results"]) + (
        statistics.median(m["ms"] for m in seen["maps"]) if seen["maps"] else 0.0)


def share(seen: Seen) -> Ratio:
    """Live pictures a second times the seconds that model and map took for one."""
    maps = sum(m["ms"] for m in seen["maps"]) / len(seen["results"])
    shares = []
    for window in windows(seen["results"]):
        own = statistics.mean(of_model(r["ms"]) for r in window[1:]) + maps
        shares.append(own * (len(window) - 1) / (window[-1]["at"] - window[0]["at"]))
    return Ratio(shares)


def busy(seen: Seen, task: str) -> Row:
    """How much of its time the model is busy with the page's pictures; a camera has no more than it has."""
    results, busiest = seen["results"], share(seen)
    rate = (len(results) - 1) / (results[-1]["at"] - results[0]["at"]) * 1000
    middle = {part: statistics.median(r["ms"][part] for r in results) for part in ("wait", "decode")}
    return at_least(f"live frames a second x model time, {task}", busiest, 0.95,
                    f"{rate:.1f} a second; model with map {model_time(seen):.1f} ms, waiting "
                    f"{middle['wait']:.1f}, decoding {middle['decode']:.1f}; camera {WIDTH}x{HEIGHT} at "
                    f"{RATE}: at most {min(1.0, RATE / 1000 * model_time(seen)):.2f} can be reached; browser "
                    f"and server share {cores()} cores, {seen['load']:.0%} busy")


def age(seen: Seen, task: str) -> Row:
    """From taking a picture off the camera to the repaint that shows it."""
    allowed = 2 * model_time(seen) + 15
    ages = [a["ms"] for a in seen["ages"]]
    trip = statistics.median(r["roundTrip"] for r in seen["results"])
    return at_most(f"age of a live picture when it is shown / (2 x model time + 15 ms), {task}",
                   Ratio([a / allowed for a in ages]), 1.0,
                   f"{statistics.median(ages):.1f} ms over {allowed:.1f}, one in ten above "
                   f"{statistics.quantiles(ages, n=10)[-1]:.1f}; of it {trip:.1f} from sending to the answer")


def repaints(seen: list[float], task: str) -> Row:
    """How often the page repaints while it is live; the browser's own rate is 60."""
    gaps = np.diff(seen)
    late = float((gaps > 25).mean())
    return at_least(f"repaints a second while live, {task}", 1000 / float(gaps.mean()), 59.0,
                    f"camera {WIDTH}x{HEIGHT}; {late:.1%} of them late by more than half a repaint")


def unwatched(shown: Any, task: str, seconds: float) -> Row:
    """How busy the server keeps the model when nothing else is to be done: no camera, no drawing."""
    given = {"task": task, "jpeg": browser.camera(photograph("zidane")), "seconds": seconds}
    shown.evaluate(browser.CONNECTED % STREAM, {**given, "seconds": 1.0})      # warm
    seen = shown.evaluate(browser.CONNECTED % STREAM, given)[0]
    between = [b["at"] - a["at"] for a, b in pairwise(seen["results"])]
    return Row(f"frames a second x model time, {task}, by a client that draws nothing", share(seen),
               note=f"one every {statistics.median(between):.1f} ms; model with map {model_time(seen):.1f}")


def served_overhead(address: str, shown: Any, rounds: int, count: int = 12) -> Row:
    """A round trip without the model, over decoding and a bare echo of the same bytes; both by turns."""
    jpeg = browser.camera(photograph("cat"))
    data, port = base64.b64decode(jpeg), browser.free_port()
    given = {"task": "classify", "jpeg": jpeg, "count": count, "echo": f"http://localhost:{port}"}
    ratios: list[float] = []
    parts: list[tuple[float, float, float]] = []
    echo = Popen([sys.executable, "-c", ECHO, str(port), address], cwd=browser.ROOT, stdout=DEVNULL,
                 stderr=DEVNULL)
    try:
        shown.evaluate(browser.CONNECTED % BESIDE, given)      # warm
        while len(ratios) < rounds * count and not (ratios and decided(ratios, 1.2)):
            for trip, ms in shown.evaluate(browser.CONNECTED % BESIDE, given)[2:]:
                start = time.perf_counter()
                decode(data)
                parts.append((trip - of_model(ms), ms["echo"], (time.perf_counter() - start) * 1000))
                ratios.append(parts[-1][0] / (parts[-1][1] + parts[-1][2]))
    finally:
        echo.terminate()
        echo.wait(10)
    ours, bare, decoding = (statistics.median(p) for p in zip(*parts, strict=True))
    return at_most("round trip without the model / (decoding + a bare Socket.IO echo)", Ratio(ratios), 1.2,
                   f"{ours:.1f} ms over {decoding:.1f} + {bare:.1f}; {len(data):,} bytes")
