"""Driving the page from a test: the server process, what a page says and sends, and what it shows."""
from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from playwright.sync_api import Page, WebSocket

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = Path(__file__).parent / "screenshots"
COMMAND = [sys.executable, "app.py"]


class Server:
    """The app in its own process, on one port for the whole session; it may be stopped and started."""

    def __init__(self, log: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url, self.log = f"http://localhost:{self.port}", log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [*COMMAND, "--port", str(self.port)], cwd=ROOT, stdout=out, stderr=out,
                env={**os.environ, "PYTHONUNBUFFERED": "1"})
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=2).close()
                return
            except OSError:
                assert self.process.poll() is None, f"the server ended:\n{self.log.read_text()[-3000:]}"
                time.sleep(0.1)
        raise AssertionError(f"no server after a minute:\n{self.log.read_text()[-3000:]}")

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)

    def hold(self, still: bool) -> None:
        """Let it answer nothing for a while, or go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP if still else signal.SIGCONT)


class Watched:
    """What a page says on its console, what it asks for, and what it sends and hears on its socket."""

    def __init__(self, page: Page, server: Server):
        self.server, self.problems, self.foreign = server, [], []  # type: Server, list[str], list[str]
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.talk: list[tuple[str, dict[str, Any]]] = []       # what was sent and heard, in order
        page.on("console", lambda m: self.problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: self.problems.append(str(e)))
        page.on("request", lambda r: self._asked(r.url))
        page.on("websocket", self._socket)

    def _asked(self, url: str) -> None:
        if not url.startswith((self.server.url, "blob:", "data:")):
            self.foreign.append(url)

    def _socket(self, ws: WebSocket) -> None:
        self._asked(ws.url.replace("ws:", "http:", 1))
        ws.on("framesent", lambda data: self._said(data, self.sent, self.talk))
        ws.on("framereceived", lambda data: self._said(data, self.talk))

    @staticmethod
    def _said(data: str | bytes, *logs: list[tuple[str, dict[str, Any]]]) -> None:
        found = re.match(r"4[25]\d*-?(\[.*)", data, re.DOTALL) if isinstance(data, str) else None
        if found:
            event, *fields = json.loads(found[1])
            for log in logs:
                log.append((event, fields[0] if fields else {}))

    def of(self, event: str) -> list[dict[str, Any]]:
        """Everything sent under that name so far."""
        return [fields for name, fields in self.sent if name == event]


def visit(page: Page, server: Server) -> None:
    """Open the page and wait until the server's model is ready."""
    page.goto(server.url)
    until(page, "state.connection === 'open' && !state.configuring", seconds=60)


def state(page: Page, expression: str) -> Any:
    """A value from the page's state: state(page, 'result.classes[0].label')."""
    return page.evaluate(f"import('/static/js/state.js').then(({{ state }}) => state.{expression})")


def until(page: Page, condition: str, seconds: float = 20) -> None:
    """Wait for a condition on the page's state: until(page, 'state.explanation?.done')."""
    until_true(page, f"import('/static/js/state.js').then(({{ state }}) => Boolean({condition}))", seconds)


def until_true(page: Page, expression: str, seconds: float = 20) -> None:
    """Wait for an expression that may be a promise, which Playwright's wait_for_function takes for true."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"waited {seconds} s for {expression}"
        page.wait_for_timeout(50)


def open_preset(page: Page, name: str) -> None:
    """Choose a preset picture and wait for its finished map."""
    page.locator("#strip li.preset button", has_text=re.compile(f"^{name}$", re.IGNORECASE)).click()
    until(page, f"state.picture?.title.toLowerCase() === '{name}' && state.picture.result"
                " && state.explanation?.done")


def start_camera(page: Page) -> None:
    """Switch the camera on and wait for the first map of a live picture."""
    page.click("#camera")
    until(page, "state.source === 'camera' && state.result && state.explanation?.shape")


def heat(page: Page) -> np.ndarray:
    """The map on the stage as it travelled, in raw values."""
    e = page.evaluate("""import('/static/js/state.js').then(({ state: { explanation: e } }) =>
        ({ heat: Array.from(e.heat), shape: e.shape, signed: e.signed, scale: e.scale }))""")
    data = np.array(e["heat"], np.float64).reshape(e["shape"])
    return (data - 128) / 127 * e["scale"] if e["signed"] else data / 255 * e["scale"]


def stage_pixels(page: Page) -> np.ndarray:
    """What is drawn on the stage's canvas, RGB."""
    shot = np.frombuffer(page.locator("#picture").screenshot(), np.uint8)
    picture = cv2.imdecode(shot, cv2.IMREAD_COLOR_RGB)
    assert picture is not None
    return picture


def screenshot(page: Page, name: str) -> None:
    """Keep a picture of the page for people to look at; the folder is ignored by git."""
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")
