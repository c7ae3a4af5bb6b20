"""One server and one browser for all browser tests: the system's Chromium with a camera that shows a file.

For other test files: `page` is a fresh page whose test fails on any console error or foreign request,
`show(picture)` puts a photograph before the camera, and tests.browser.drive opens presets and reads maps.
"""
from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser.drive import Server, Watched, visit

expect.set_options(timeout=20_000)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server") / "log.txt")
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def camera_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("camera") / "shown.mjpeg"


@pytest.fixture(scope="session")
def show(camera_file: Path) -> Callable[[np.ndarray], None]:
    """Put an RGB photograph before the camera, 640x480; it is seen from the next time the camera starts."""

    def put(picture: np.ndarray) -> None:
        h, w = picture.shape[:2]
        ratio = max(640 / w, 480 / h)
        large = cv2.resize(picture, (round(w * ratio), round(h * ratio)), interpolation=cv2.INTER_AREA)
        top, left = (large.shape[0] - 480) // 2, (large.shape[1] - 640) // 2
        frame = large[top:top + 480, left:left + 640, ::-1]
        done, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 92])
        assert done
        camera_file.write_bytes(data.tobytes() * 5)

    return put


@pytest.fixture(scope="session")
def browser(camera_file: Path, show: Callable[[np.ndarray], None],
            photographs: dict[str, np.ndarray]) -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    assert path, f"browser tests need a Chromium, looked for {', '.join(names)}; make test installs it"
    show(photographs["cat"])
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=[
            "--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={camera_file}"])
        yield running
        running.close()


@pytest.fixture
def context(browser: Browser, server: Server) -> Iterator[BrowserContext]:
    """A visitor who lets the page use the camera."""
    made = browser.new_context(viewport={"width": 1280, "height": 720}, color_scheme="light")
    made.grant_permissions(["camera"], origin=server.url)
    yield made
    made.close()


@pytest.fixture
def watched(page: Page) -> Watched:
    return page.watched  # type: ignore[attr-defined]


@pytest.fixture
def page(context: BrowserContext, server: Server) -> Iterator[Page]:
    opened = context.new_page()
    watched = opened.watched = Watched(opened, server)  # type: ignore[attr-defined]
    visit(opened, server)
    yield opened
    assert not watched.problems, f"the console says: {watched.problems}"
    assert not watched.foreign, f"requests to another origin: {watched.foreign}"
