"""The page in a real browser: pictures in, answers and maps out, and words for whatever goes wrong."""
from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from explainers import Look
from models.base import Model
from tests.browser.drive import (
    Server,
    Watched,
    heat,
    open_preset,
    screenshot,
    stage_pixels,
    start_camera,
    state,
    until,
    visit,
)

Show = Callable[[np.ndarray], None]
Pictures = dict[str, np.ndarray]


def test_it_opens_clean_and_fits_one_screen(page: Page) -> None:
    expect(page.locator("#status-words")).to_contain_text("EfficientNet-Lite0")
    expect(page.locator("#notice")).to_contain_text("Show it something")
    open_preset(page, "coffee")
    expect(page.locator("#sees-classify .top-answer")).to_have_text("espresso")
    root = "document.documentElement"
    assert page.evaluate(f"[{root}.scrollHeight, {root}.scrollWidth]") == [720, 1280]
    fits = page.evaluate("[panel.scrollHeight, panel.clientHeight]")
    assert fits[0] <= fits[1], f"the right column needs {fits[0]} px and has {fits[1]}"
    screenshot(page, "light-1280")


def test_camera_to_label(page: Page, show: Show, photographs: Pictures, lite0: Model) -> None:
    show(photographs["cat"])
    start_camera(page)
    expected = {c.label for c in Look(lite0, photographs["cat"]).prediction.classes[:3]}
    seen = {c["label"] for c in state(page, "result.classes.slice(0, 3)")}
    assert seen & expected, f"the camera shows the cat, expected some of {expected}, got {seen}"
    headline = page.locator("#sees-classify .top-answer").inner_text()
    assert headline in {"tabby", "tiger cat", "Egyptian cat", "lynx"}
    expect(page.locator("#figures")).to_contain_text("fps")
    expect(page.locator("#figures")).to_contain_text("ms")
    screenshot(page, "camera-live")


def test_the_map_lies_on_the_object(page: Page, show: Show, photographs: Pictures) -> None:
    show(photographs["coffee"])
    start_camera(page)
    until(page, "state.result.classes[0].label === 'espresso'")
    warm = heat(page)
    rows, columns = np.indices(warm.shape)
    centre = [float((warm * axis).sum() / warm.sum() / size)
              for axis, size in zip((rows, columns), warm.shape, strict=True)]
    assert 0.2 < centre[0] < 0.6 and 0.3 < centre[1] < 0.7, f"the cup is at the middle, the map at {centre}"


def test_bars_keep_their_places_while_live(page: Page, show: Show, photographs: Pictures) -> None:
    show(photographs["cat"])
    start_camera(page)
    jumps = page.evaluate("""async () => {
        const { on } = await import('/static/js/bus.js');
        let last = null, jumps = 0, seen = 0;
        return new Promise((done) => on('result', () => {
            const rows = [...document.querySelectorAll('#sees-classify .bar-row')];
            const now = rows.map((row) => row.dataset.index);
            if (last) jumps += now.filter((index, i) => last.includes(index) && last[i] !== index).length;
            last = now;
            if ((seen += 1) === 8) done(jumps);
        }));
    }""")
    assert jumps == 0, f"{jumps} bars changed places though their class stayed among the five"


def test_nothing_more_is_sent_in_silence_and_after_five_seconds_one_frame_is_tried(
        page: Page, watched: Watched, server: Server) -> None:
    start_camera(page)
    server.hold(True)
    try:
        until(page, "state.waiting")
        before = len(watched.of("frame"))
        expect(page.locator("#status-words")).to_contain_text("Waiting for it")
        page.wait_for_timeout(2000)
        assert len(watched.of("frame")) == before, "a frame was sent though nothing is answered"
        silence = page.evaluate("performance.now()") + 8000
        while len(watched.of("frame")) == before:
            assert page.evaluate("performance.now()") < silence, "no frame after 5 s of silence"
            page.wait_for_timeout(50)
        page.wait_for_timeout(500)
        assert len(watched.of("frame")) == before + 1
    finally:
        server.hold(False)
    until(page, "state.result")
    expect(page.locator("#status-words")).to_contain_text("live")


def test_space_freezes_the_frame_that_is_shown(page: Page, watched: Watched) -> None:
    start_camera(page)
    page.keyboard.press("Space")
    until(page, "state.source === 'still' && state.picture?.result && state.explanation?.done")
    assert watched.of("frame")[-1].get("keep") is True
    expect(page.locator("#strip li.frame")).to_have_count(1)
    expect(page.locator("#freeze")).to_have_text("Go live")
    page.keyboard.press("Space")
    until(page, "state.source === 'camera' && state.result && state.explanation?.live")
    page.locator("#strip li.frame button").click()
    until(page, "state.source === 'still' && state.picture?.result")
    page.click("#camera")
    until(page, "state.source === 'still'")


def test_mirror_turns_the_picture_and_its_map_together(page: Page, show: Show, photographs: Pictures) -> None:
    half = photographs["coffee"].copy()
    half[:, half.shape[1] // 2:] = 0
    show(half)
    start_camera(page)
    page.check("#mirror")
    page.wait_for_timeout(800)
    shown = stage_pixels(page).mean((0, 2))
    middle = len(shown) // 2
    assert shown[:middle].mean() < shown[middle:].mean(), "the dark half must be on the left"


def test_upload_is_scaled_down_in_the_browser(page: Page, tmp_path: Path, photographs: Pictures) -> None:
    large = cv2.resize(photographs["astronaut"], (3000, 3000))
    file = tmp_path / "large.png"
    cv2.imwrite(str(file), large[..., ::-1])
    page.set_input_files("#file", file)
    until(page, "state.picture?.result && state.explanation?.done")
    size, weight = page.evaluate("""import('/static/js/state.js').then(({ state: { picture } }) =>
        [picture.size, picture.jpeg.byteLength])""")
    assert max(size) <= 1280 and size[0] * size[1] <= 2_000_000 and weight <= 300_000
    expect(page.locator("#strip li.frame")).to_have_count(1)


def drop(page: Page, event: str, data: bytes, name: str, kind: str) -> None:
    page.evaluate("""([event, data, name, type]) => {
        const carried = new DataTransfer();
        carried.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, { type }));
        const options = { bubbles: true, cancelable: true };
        document.body.dispatchEvent(event === 'paste'
            ? new ClipboardEvent('paste', { ...options, clipboardData: carried })
            : new DragEvent('drop', { ...options, dataTransfer: carried }));
    }""", [event, base64.b64encode(data).decode(), name, kind])


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_pictures_are_dropped_and_pasted(page: Page, photographs: Pictures, event: str) -> None:
    done, data = cv2.imencode(".png", photographs["coffee"][..., ::-1])
    assert done
    drop(page, event, data.tobytes(), "cup.png", "image/png")
    until(page, "state.picture?.result")
    expect(page.locator("#sees-classify .top-answer")).to_have_text("espresso")


def test_what_is_no_picture_gets_a_sentence(page: Page) -> None:
    drop(page, "drop", b"no picture at all", "notes.txt", "text/plain")
    expect(page.locator("#alert")).to_contain_text("notes.txt is not a picture")
    open_preset(page, "cat")


def test_server_restart_and_recovery(page: Page, server: Server) -> None:
    open_preset(page, "coffee")
    server.stop()
    expect(page.locator("#status-words")).to_contain_text("comes back by itself")
    server.start()
    until(page, "state.connection === 'open' && !state.configuring", seconds=60)
    page.locator("#sees-classify .bar-row").nth(1).click()
    until(page, "state.target && state.explanation?.done && state.explanation.title.includes('cup')")
    start_camera(page)
    page.watched.problems.clear()  # type: ignore[attr-defined]  # the browser itself reports each failed try


CAMERA = "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', '{}'))"
PROBLEMS = {
    CAMERA.format("NotFoundError"): "No camera was found",
    CAMERA.format("NotReadableError"): "in use by another program",
    CAMERA.format("OverconstrainedError"): "cannot be opened any more",
    "Object.defineProperty(navigator, 'mediaDevices', { value: undefined })": "only to secure pages",
}


def test_each_camera_problem_has_its_own_words(page: Page) -> None:
    for script, words in PROBLEMS.items():
        page.evaluate(f"() => {{ {script}; }}")
        page.click("#camera")
        expect(page.locator("#notice")).to_contain_text(words)
        expect(page.locator("#notice button")).to_be_visible()


def test_a_refused_camera_says_what_to_do(browser: Browser, server: Server) -> None:
    stranger = browser.new_context()
    page = stranger.new_page()
    visit(page, server)
    page.click("#camera")
    expect(page.locator("#notice")).to_contain_text("The camera was refused. Allow it")
    open_preset(page, "cat")
    expect(page.locator("#notice")).to_be_hidden()
    stranger.close()


def test_waiting_for_a_model_has_words_and_numbers(page: Page) -> None:
    open_preset(page, "cat")
    send = "import('/static/js/bus.js').then(({ emit }) => emit('%s', %s))"
    page.evaluate(send % ("progress", "{ what: 'fetch', name: 'resnet50', done: 12.34e6, total: 97.8e6 }"))
    expect(page.locator("#busy-words")).to_have_text("Fetching ResNet-50: 12.3 of 97.8 MB")
    page.evaluate(send % ("failure", "{ code: 'busy', message: 'Too many pages are open.' }"))
    expect(page.locator("#alert")).to_contain_text("open. The next picture is tried by itself.")
    expect(page.locator("#busy")).to_be_hidden()


def test_narrow_screens_stack_with_the_picture_first(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 800})
    open_preset(page, "cat")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    stage, panel = page.locator("#stage").bounding_box(), page.locator("#panel").bounding_box()
    assert stage and panel and stage["y"] + stage["height"] <= panel["y"] and stage["width"] > 300
    screenshot(page, "phone-360")


def test_presenting_is_larger_and_ends_with_escape(page: Page) -> None:
    page.set_viewport_size({"width": 1920, "height": 1080})
    open_preset(page, "cat")
    size = "parseFloat(getComputedStyle(document.querySelector('#sees-classify .top-answer')).fontSize)"
    before = page.evaluate(size)
    page.keyboard.press("p")
    expect(page.locator("#strip")).to_be_hidden()
    assert page.evaluate(size) > 1.5 * before
    page.wait_for_timeout(300)
    screenshot(page, "present-1920")
    page.keyboard.press("p")
    expect(page.locator("#strip")).to_be_visible()


CONTRAST = """(theme) => {
    const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
        .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = (node) => {
        for (let at = node; at; at = at.parentElement) {
            const colour = numbers(getComputedStyle(at).backgroundColor);
            if (colour.length < 4 || colour[3] > 0.5) return colour;
        }
        return theme === 'dark' ? [0, 0, 0] : [255, 255, 255];
    };
    const bad = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !node.checkVisibility({ visibilityProperty: true })) continue;
        if (node.closest('option, noscript, :disabled')) continue;
        const style = getComputedStyle(node);
        const [a, b] = [light(numbers(style.color)), light(ground(node))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        const onBar = node.matches('.bar-label, .bar-value');
        const size = parseFloat(style.fontSize);
        const text = walker.currentNode.data.trim().slice(0, 30);
        if (ratio < 4.5 || size < 16) bad.push(`${text}: ${ratio.toFixed(1)}, ${size} px`);
        if (onBar) {
            const fill = getComputedStyle(node.parentElement.querySelector('.bar-fill')).backgroundColor;
            const [c, d] = [light(numbers(style.color)), light(numbers(fill))].sort((x, y) => y - x);
            if ((c + 0.05) / (d + 0.05) < 4.5) bad.push(`${node.textContent} on its bar`);
        }
    }
    return bad;
}"""


def test_every_text_is_readable_in_light_and_dark(page: Page) -> None:
    open_preset(page, "cat")
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        page.wait_for_timeout(300)
        assert page.evaluate(CONTRAST, theme) == []
        page.click("#help")
        assert page.evaluate(CONTRAST, theme) == []
        page.keyboard.press("Escape")
        expect(page.locator("#keys")).to_be_hidden()
        screenshot(page, f"{theme}-cat")


def test_the_answer_is_announced_calmly(page: Page, show: Show, photographs: Pictures) -> None:
    show(photographs["coffee"])
    start_camera(page)
    page.evaluate("""() => { window.said = []; new MutationObserver(() =>
        window.said.push(document.querySelector('#spoken').textContent))
        .observe(document.querySelector('#spoken'), { childList: true }); }""")
    start = time.monotonic()
    while not page.evaluate("window.said.length") and time.monotonic() - start < 8:
        page.wait_for_timeout(200)
    page.wait_for_timeout(1000)
    said = page.evaluate("window.said")
    assert 1 <= len(said) <= 2 and "espresso" in said[0], f"expected one calm sentence, got {said}"
