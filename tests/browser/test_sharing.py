"""A page that is shared: its link is left at once, who has none is told so, and the server's end is told."""
from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.browser.drive import ROOT

TOKEN, OTHER = "a-token-for-tests", "another-token-for-tests"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def shared(port: int, token: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=ROOT, stdout=log,
                                   stderr=log, env={**os.environ, "SEEWHY_TOKEN": token})
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=2).close()
                break
            except OSError:
                time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_link_opens_the_page_and_is_left_and_the_end_is_told(browser: Browser, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://localhost:{port}"
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    page = context.new_page()
    words = page.locator("#status-words")
    with shared(port, TOKEN, tmp_path) as process:
        page.goto(url)
        expect(page.locator("p")).to_contain_text("This page is opened by a link")
        seen: list[str] = []
        page.on("request", lambda request: seen.append(f"{request.url} {request.headers.get('referer')}"))
        page.goto(f"{url}/enter?token={TOKEN}")
        expect(words).to_contain_text("ready", timeout=60_000)
        assert page.url == f"{url}/" and [line for line in seen if TOKEN in line] == seen[:1]
        assert TOKEN not in page.content() and not page.evaluate("document.referrer")
        assert page.evaluate("document.cookie") == "", "scripts do not see it"
        page.go_back()
        page.go_forward()
        assert TOKEN not in page.url
        expect(words).to_contain_text("ready", timeout=60_000)

        process.send_signal(signal.SIGTERM)
        expect(words).to_contain_text("The server is closing")
        assert process.wait(20) == 0
    with shared(port, TOKEN, tmp_path):        # the same token: nobody needs the link again
        expect(words).to_contain_text("ready", timeout=60_000)
    with shared(port, OTHER, tmp_path):
        expect(words).to_contain_text("asks for its link again", timeout=60_000)
        page.goto(f"{url}/enter?token={OTHER}")
        expect(words).to_contain_text("ready", timeout=60_000)
    assert OTHER in (tmp_path / "log").read_text(), "it was printed"
    context.close()


def test_a_link_that_is_clicked_elsewhere_leads_in(browser: Browser, tmp_path: Path) -> None:
    """From another site a browser withholds a strict cookie, on redirections too."""
    port = free_port()
    context = browser.new_context()
    page = context.new_page()
    with shared(port, TOKEN, tmp_path):
        page.route("http://elsewhere.example/", lambda route: route.fulfill(
            content_type="text/html", body=f'<a href="http://localhost:{port}/enter?token={TOKEN}">class</a>'))
        page.goto("http://elsewhere.example/")
        page.click("a")
        expect(page.locator("#status-words")).to_contain_text("ready", timeout=60_000)
        assert page.url == f"http://localhost:{port}/"
    context.close()
