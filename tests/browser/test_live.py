"""The path of a live picture: how many are under way, who encodes them, and what a bad line does to them."""
from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.drive import Server, Watched, start_camera, state, until, visit

Show = Callable[[np.ndarray], None]
Pictures = dict[str, np.ndarray]

ANSWERS = ("result", "error", "dropped")
# A page is not told that it is hidden by a browser that is never seen; so it is told here.
HIDE = """(hidden) => {
    Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event('visibilitychange'));
    return performance.now();
}"""
# A line that carries `rate` bytes a millisecond, one message after the other; what it has not carried yet is
# counted as the browser counts it, and of it the pictures. (The browser's own slow line spares WebSockets.)
LINE = """const Real = window.WebSocket;
window.line = { rate: Infinity, pictures: 0, most: 0, held: 0, free: 0, last: Promise.resolve() };
window.WebSocket = class extends Real {
    get bufferedAmount() { return super.bufferedAmount + window.line.held; }
    send(data) {
        const { line } = window, size = data.byteLength ?? data.length, now = performance.now();
        const picture = size > 1000 ? 1 : 0;
        line.held += size;
        line.most = Math.max(line.most, line.pictures += picture);
        line.free = Math.max(now, line.free) + size / line.rate;
        const carried = new Promise((over) => { setTimeout(over, line.free - now); });
        line.last = Promise.all([line.last, carried]).then(() => {
            line.held -= size;
            line.pictures -= picture;
            if (this.readyState === Real.OPEN) super.send(data);
        });
    }
};"""
RECORD = """async (milliseconds) => {
    const { on } = await import('/static/js/bus.js');
    const seen = [];
    const endings = [
        on('result', ({ seq, ms }) => seen.push({ seq, at: performance.now(), ms })),
        on('explanation', ({ seq, ms }) => seen.push({ seq, at: performance.now(), map: ms }))];
    await new Promise((over) => { setTimeout(over, milliseconds); });
    endings.forEach((end) => end());
    return seen;
}"""


def under_way(talk: list[tuple[str, dict[str, Any]]]) -> int:
    """How many live frames were unanswered at most."""
    waiting: set[int] = set()
    most = 0
    for event, fields in talk:
        if event == "frame":
            waiting.add(fields["seq"])
        elif event in ANSWERS:
            waiting.discard(fields.get("seq", -1))
        most = max(most, len(waiting))
    return most


def busy(seen: list[dict[str, Any]]) -> tuple[float, float]:
    """Live pictures a second, and the share of the time that the model was busy with them."""
    results = [s for s in seen if "map" not in s]
    seconds = (results[-1]["at"] - results[0]["at"]) / 1000
    own = sum(r["ms"]["prepare"] + r["ms"]["encode"] + r["ms"]["predict"] for r in results[1:])
    return (len(results) - 1) / seconds, (own + sum(s.get("map") or 0 for s in seen)) / 1000 / seconds


def choose(page: Page, task: str) -> None:
    if state(page, "task") != task:
        page.click(f"#tab-{task}")
    until(page, f"state.configured?.task === '{task}' && !state.configuring", seconds=60)


def until_sent(page: Page, watched: Watched, count: int, seconds: float = 20) -> None:
    """Wait until so many frames have left."""
    end = time.monotonic() + seconds
    while len(watched.of("frame")) < count:
        assert time.monotonic() < end, f"{len(watched.of('frame'))} of {count} frames in {seconds} s"
        page.wait_for_timeout(50)


@pytest.mark.parametrize("task", ["classify", "detect"])
def test_two_pictures_at_most_are_under_way_and_come_back_in_order(
        page: Page, watched: Watched, show: Show, photographs: Pictures, task: str) -> None:
    show(photographs["zidane"])
    choose(page, task)
    start_camera(page)
    page.wait_for_timeout(1000)
    seen = page.evaluate(RECORD, 2000)
    order = [s["seq"] for s in seen if "map" not in s]
    assert len(order) > 3 and all(a < b for a, b in pairwise(order))
    assert 1 <= under_way(watched.talk) <= 2
    fps, share = busy(seen)
    print(f"\n{task}: {fps:.1f} pictures a second, the model busy {share:.0%} of the time")


def test_pictures_are_encoded_in_a_worker(page: Page) -> None:
    start_camera(page)
    assert [worker.url.rsplit("/", 1)[-1] for worker in page.workers] == ["encoding-worker.js"]
    assert 0 < max(state(page, "result.size")) <= 640


@pytest.mark.parametrize("lacking", [
    "delete window.OffscreenCanvas;",
    "delete window.OffscreenCanvas; delete window.VideoFrame;"
    "delete HTMLVideoElement.prototype.requestVideoFrameCallback;",
    "delete window.VideoFrame;"], ids=["no worker that draws", "neither worker nor stamps", "no stamps"])
def test_a_browser_that_can_less_is_live_too(context: BrowserContext, server: Server, lacking: str) -> None:
    page = context.new_page()
    page.add_init_script(lacking)
    watched = Watched(page, server)
    visit(page, server)
    start_camera(page)
    until_sent(page, watched, len(watched.of("frame")) + 3)
    assert under_way(watched.talk) <= 2 and bool(page.workers) == ("Offscreen" not in lacking)
    assert state(page, "result.picture.jpeg.byteLength") > 1000
    assert not watched.problems


def test_a_picture_that_was_taken_is_not_taken_again(page: Page) -> None:
    """But for one in a quarter of a second, in case the camera stands still."""
    start_camera(page)
    sent, given = page.evaluate("""async () => {
        const { on } = await import('/static/js/bus.js');
        const Real = window.VideoFrame, stamps = new Set();
        window.VideoFrame = class extends Real {
            constructor(...given) { super(...given); stamps.add(this.timestamp); }
        };
        let sent = 0;
        const end = on('result', () => { sent += 1; });
        await new Promise((over) => { setTimeout(over, 1500); });
        window.VideoFrame = Real;
        end();
        return [sent, stamps.size];
    }""")
    assert 1 < sent <= given + 2 + 6, f"{sent} pictures were sent and the camera gave {given}"


def test_a_hidden_page_takes_nothing_and_goes_on_when_it_is_seen(page: Page) -> None:
    start_camera(page)
    hidden = page.evaluate(HIDE, True)
    page.wait_for_timeout(1500)
    assert state(page, "result.picture.taken") <= hidden
    page.evaluate(HIDE, False)
    until(page, f"state.result.picture.taken > {hidden}")


def test_a_server_that_comes_back_is_live_again_by_itself(
        page: Page, watched: Watched, server: Server) -> None:
    start_camera(page)
    server.stop()
    until(page, "state.connection === 'gone'")
    watched.talk.clear()
    answered = state(page, "result.seq")
    server.start()
    until(page, "state.connection === 'open' && !state.configuring", seconds=60)
    until(page, f"state.result?.seq > {answered + 3}")
    assert under_way(watched.talk) <= 2
    expect(page.locator("#status-words")).to_contain_text("live")
    watched.problems.clear()                   # the browser itself reports each failed try


def test_a_still_taken_while_two_are_under_way_gets_its_own_answer(
        page: Page, watched: Watched, show: Show, photographs: Pictures) -> None:
    show(photographs["zidane"])
    choose(page, "detect")
    start_camera(page)
    for _ in range(3):
        page.keyboard.press("Space")
        until(page, "state.source === 'still' && state.picture?.result")
        last = watched.of("frame")[-1]
        assert last.get("keep") is True and state(page, "picture.result.seq") == last["seq"]
        page.keyboard.press("Space")
        until(page, "state.source === 'camera' && state.result")


def test_a_thin_line_gets_smaller_pictures_and_is_never_stuffed(
        context: BrowserContext, server: Server) -> None:
    """20 kB a second: never does a picture wait in the browser behind another, and the connection stays."""
    page = context.new_page()
    page.add_init_script(LINE)
    watched = Watched(page, server)
    visit(page, server)
    start_camera(page)
    page.evaluate("window.line.rate = 20")
    until(page, "state.result.size[0] <= 320", seconds=60)
    page.evaluate("window.line.most = 0")
    until(page, f"state.result.seq > {state(page, 'result.seq') + 4}", seconds=30)
    print(f"\n{state(page, 'result.size')} in {state(page, 'result.picture.jpeg.byteLength')} bytes")
    assert page.evaluate("window.line.most") == 1
    assert state(page, "connection") == "open" and under_way(watched.talk) <= 2
    assert not watched.problems
