"""Frames per second from a fake camera to what a page shows: ours, and Gradio's with the same function."""
from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench import browser

GRADIO = Path(sys.prefix) / "gradio" / "bin" / "python"
WINDOW = 2.0                 # seconds of one count
WINDOWS = 3                  # counts in each turn of a page
TURNS = 3


class Missing(Exception):
    """Gradio is not here."""


def rates(turns: int = TURNS) -> tuple[list[float], list[float]]:
    """Frames per second of windows of ours and of Gradio's, the pages taking turns in front of one camera."""
    if not GRADIO.exists():
        raise Missing("Gradio is not installed; make bench does it")
    ours: list[float] = []
    theirs: list[float] = []
    with ExitStack() as running:
        context = running.enter_context(with_camera(browser.photograph("cat")))
        address = running.enter_context(browser.served())
        other = running.enter_context(gradio())
        for turn in range(turns):
            for counted, visit in ((ours, lambda: of_ours(context, address)),
                                   (theirs, lambda: of_gradio(context, other)))[::1 if turn % 2 else -1]:
                counted += visit()
    return ours, theirs


@contextmanager
def with_camera(picture: np.ndarray) -> Iterator[Callable[[str], Any]]:
    """Chromium whose camera pans over a picture: `open(address)` gives a page that may use it there."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        film = Path(folder, "shown.mjpeg")
        film.write_bytes(b"".join(panned(picture)))
        chromium = playwright.chromium.launch(executable_path=browser.chromium(), args=[
            "--no-sandbox", "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-video-capture={film}"])

        def opened(address: str) -> Any:
            visitor = chromium.new_context(viewport={"width": 1280, "height": 720})
            visitor.grant_permissions(["camera"], origin=address)
            return visitor.new_page()

        yield opened
        chromium.close()


def panned(picture: np.ndarray, count: int = 24) -> Iterator[bytes]:
    """JPEGs of 640x480 that all differ, so that each can be told from the one before."""
    large = cv2.resize(picture, (640 + 8 * count, 480), interpolation=cv2.INTER_AREA)
    for i in range(count):
        left = 8 * (i if i < count // 2 else count - i)
        shown = np.ascontiguousarray(large[:, left:left + 640, ::-1])
        yield cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


@contextmanager
def gradio() -> Iterator[str]:
    """Gradio's page in its own process."""
    port = browser.free_port()
    process = subprocess.Popen([str(GRADIO), str(Path(__file__).with_name("gradio_page.py")), str(port),
                                sysconfig.get_path("purelib")], stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(address).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise RuntimeError("Gradio's page ended before it could be asked") from None
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def of_ours(open_page: Callable[[str], Any], address: str) -> list[float]:
    """Explained frames that arrive at our page, which draws each."""
    page, heard = open_page(address), [0]

    def listen(data: str | bytes) -> None:
        heard[0] += isinstance(data, str) and '["explanation"' in data[:40]

    page.on("websocket", lambda ws: ws.on("framereceived", listen))
    page.goto(address)
    page.click("#camera")
    return _counted(page, lambda: heard[0])


def of_gradio(open_page: Callable[[str], Any], address: str) -> list[float]:
    """New pictures in Gradio's page."""
    page = open_page(address)
    page.goto(address)
    page.click("text=Click to Access Webcam")
    record = page.locator("button[aria-label='capture photo']")
    record.wait_for()
    page.evaluate(COUNTED)
    record.click()
    return _counted(page, lambda: page.evaluate("window.counted"))


# Gradio's picture has a new address whenever it shows another one.
COUNTED = """() => {
  window.counted = 0;
  let last = null;
  const look = () => {
    const now = document.querySelector('#seen img')?.src;
    if (now && now !== last) { window.counted += 1; last = now; }
    setTimeout(look, 2);
  };
  look();
}"""


def _counted(page: Any, count: Callable[[], int]) -> list[float]:
    """New results a second, window by window, once some have come."""
    end = time.monotonic() + 60
    while count() < 3:
        assert time.monotonic() < end, "the page shows no live result after a minute"
        page.wait_for_timeout(100)
    page.wait_for_timeout(1000)
    found, before, start = [], count(), time.perf_counter()
    for _ in range(WINDOWS):
        page.wait_for_timeout(1000 * WINDOW)
        now, end = count(), time.perf_counter()
        found.append((now - before) / (end - start))
        before, start = now, end
    page.context.close()
    return found
