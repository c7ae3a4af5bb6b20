"""The What if tab in a real browser: paint with the mouse, and the model changes its mind."""
from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.drive import Server, Watched, open_preset, screenshot, state, until, until_true, visit

FINAL = "import('/static/js/whatif.js').then((m) => m.current().edit?.preview === false)"
Rows = dict[str, tuple[str, str]]


@pytest.fixture
def whatif(page: Page) -> Page:
    """The tab with the coffee on it, the tour skipped, and a quick fill."""
    open_preset(page, "coffee")
    page.click("#tab-whatif")
    page.click("#tour-skip")
    expect(page.locator("#whatif-tools")).to_be_visible()
    page.select_option("#whatif-fill", "telea")
    return page


def current(page: Page, expression: str) -> Any:
    return page.evaluate(f"import('/static/js/whatif.js').then((m) => {{ const now = m.current();"
                         f" return {expression}; }})")


def settled(page: Page, work: Any) -> None:
    """Do something that edits, and wait for its final answer."""
    page.evaluate("""import('/static/js/bus.js').then(({ on }) => {
        window.edits = window.edits ?? 0;
        if (!window.counting) { window.counting = true; on('edited', () => { window.edits += 1; }); } })""")
    before = page.evaluate("window.edits")
    work()
    page.wait_for_function("(before) => window.edits > before", arg=before)


def at(page: Page, x: float, y: float) -> tuple[float, float]:
    """A place of the picture, as shares of it, in pixels of the page; it may lie outside."""
    box = page.locator("#whatif-original").bounding_box()
    size = state(page, "picture.size")
    assert box is not None
    scale = min(box["width"] / size[0], box["height"] / size[1])
    return (box["x"] + box["width"] / 2 + (x - 0.5) * size[0] * scale,
            box["y"] + box["height"] / 2 + (y - 0.5) * size[1] * scale)


def stroke(page: Page, *places: tuple[float, float]) -> None:
    page.mouse.move(*at(page, *places[0]))
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*at(page, *place), steps=6)
    page.mouse.up()


def radius(page: Page, value: int) -> None:
    page.locator("#whatif-radius").fill(str(value))


def rows(page: Page) -> Rows:
    """Class index to what stands in its row: both values, and the change."""
    return {r.get_attribute("data-index") or "": (r.locator(".whatif-values").inner_text(),
                                                  r.locator(".whatif-change").inner_text())
            for r in page.locator(".whatif-row:visible").all()}


CUP = ((0.35, 0.35), (0.65, 0.35), (0.65, 0.5), (0.35, 0.5), (0.4, 0.62), (0.6, 0.62))


def test_painting_over_the_cup_costs_the_espresso(whatif: Page) -> None:
    espresso = state(whatif, "picture.result.classes[0]")
    assert espresso["label"] == "espresso"
    radius(whatif, 60)
    settled(whatif, lambda: stroke(whatif, *CUP))
    row = rows(whatif)[str(espresso["index"])]
    before, after = (float(v) for v in re.findall(r"([\d.]+) %", row[0].replace("<", "")))
    assert before == pytest.approx(100 * espresso["probability"], abs=0.06)
    assert after < before - 20, f"the cup is painted over and espresso goes from {before} to {after}"
    assert row[1].startswith("−") and float(row[1][1:].split()[0]) == pytest.approx(before - after, abs=0.11)
    until(whatif, "document.querySelectorAll('.tile').length === 2")
    expect(whatif.locator(".tiles-scale")).to_contain_text("One scale")
    screenshot(whatif, "whatif-cup")
    whatif.select_option("#whatif-order", "own")
    own = [int(i) for i in rows(whatif)]
    assert own == current(whatif, "now.edit.classes.map((c) => c.index)")


def test_undo_brings_back_the_very_numbers(whatif: Page) -> None:
    untouched = rows(whatif)
    settled(whatif, lambda: stroke(whatif, (0.3, 0.4), (0.5, 0.4)))
    first = rows(whatif)
    settled(whatif, lambda: stroke(whatif, (0.3, 0.55), (0.6, 0.6)))
    second = rows(whatif)
    assert len({str(r) for r in (untouched, first, second)}) == 3
    settled(whatif, lambda: whatif.click("#whatif-undo"))
    assert rows(whatif) == first
    settled(whatif, lambda: whatif.keyboard.press("z"))
    assert rows(whatif) == untouched and whatif.locator("#whatif-undo").is_disabled()
    settled(whatif, lambda: whatif.keyboard.press("Control+y"))
    assert rows(whatif) == first
    settled(whatif, lambda: whatif.click("#whatif-reset"))
    assert rows(whatif) == untouched
    settled(whatif, lambda: whatif.click("#whatif-undo"))
    assert rows(whatif) == first


def test_a_stroke_that_leaves_the_canvas_is_kept(whatif: Page) -> None:
    box = whatif.locator("#whatif-original").bounding_box()
    assert box is not None
    settled(whatif, lambda: stroke(whatif, (0.8, 0.5), (1.3, 0.5), (1.3, 0.9), (0.8, 0.9)))
    mask = np.array(current(whatif, """(() => { const { canvas } = now.mask;
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        return Array.from({ length: canvas.height }, (_, y) => Array.from({ length: canvas.width },
            (_, x) => data[4 * (y * canvas.width + x) + 3] > 0)); })()"""))
    height, width = mask.shape
    assert mask[height // 2, -1] and mask[int(0.9 * height), -1], "both ends at the border"
    assert mask[int(0.9 * height), int(0.81 * width)] and not mask[int(0.7 * height), int(0.9 * width)]


def test_another_fill_another_answer(whatif: Page) -> None:
    radius(whatif, 50)
    settled(whatif, lambda: stroke(whatif, *CUP))
    telea = rows(whatif)
    answers = [str(telea)]
    for name in ("mean_colour", "patch_match"):
        settled(whatif, lambda name=name: whatif.select_option("#whatif-fill", name))  # type: ignore[misc]
        answers.append(str(rows(whatif)))
    assert len(set(answers)) == 3
    screenshot(whatif, "whatif-patchmatch")
    settled(whatif, lambda: whatif.select_option("#whatif-fill", "telea"))
    assert rows(whatif) == telea
    whatif.click("#whatif-fill-menu summary")
    settled(whatif, lambda: whatif.locator("#whatif-fill-params input").fill("20"))
    assert rows(whatif) != telea


def test_eraser_and_rectangle(whatif: Page) -> None:
    whatif.click("[data-tool=rectangle]")
    settled(whatif, lambda: stroke(whatif, (0.25, 0.25), (0.75, 0.75)))
    assert current(whatif, "now.mask.share") == pytest.approx(0.25, abs=0.01)
    whatif.click("[data-tool=eraser]")
    radius(whatif, 60)
    settled(whatif, lambda: stroke(whatif, (0.3, 0.5), (0.7, 0.5)))
    assert 0.05 < current(whatif, "now.mask.share") < 0.23


def test_previews_come_while_one_draws(whatif: Page, watched: Watched) -> None:
    whatif.mouse.move(*at(whatif, 0.3, 0.3))
    whatif.mouse.down()
    for i in range(25):
        whatif.mouse.move(*at(whatif, 0.3 + 0.015 * i, 0.35))
        whatif.wait_for_timeout(60)
    until_true(whatif, FINAL.replace("false", "true"))
    screenshot(whatif, "whatif-drawing")
    settled(whatif, whatif.mouse.up)
    assert current(whatif, "now.edit.preview") is False
    asked = [bool(e.get("preview")) for e in watched.of("edit")]
    assert asked.count(True) >= 1 and asked[-1] is False


def test_the_maps_follow_every_edit_and_every_class(whatif: Page, watched: Watched) -> None:
    settled(whatif, lambda: stroke(whatif, (0.3, 0.4), (0.6, 0.4)))
    settled(whatif, lambda: stroke(whatif, (0.3, 0.6), (0.6, 0.6)))
    whatif.locator(".whatif-row").nth(1).click()
    second = state(whatif, "picture.result.classes[1].index")
    until(whatif, f"state.target === 'class:{second}' && state.explanation?.done"
                  f" && state.explanation.target === 'class:{second}'")
    whatif.wait_for_timeout(300)
    edited = [e for e in watched.of("explain") if e.get("edited")]
    assert len(edited) >= 3 and edited[-1]["target"] == f"class:{second}"
    assert edited[0]["target"] == edited[1]["target"] != edited[-1]["target"]


def test_undesirable_pixels_stopped_half_way(whatif: Page) -> None:
    whatif.locator("#whatif-undesirable summary").click()
    whatif.select_option("#undesirable-rounds", "300")
    whatif.click("#undesirable-run")
    whatif.wait_for_function("() => document.querySelector('#undesirable-progress').value > 0.02")
    screenshot(whatif, "whatif-undesirable-running")
    whatif.click("#undesirable-stop")
    expect(whatif.locator("#undesirable-state")).to_contain_text("stopped at")
    share = int(re.findall(r"(\d+) %", whatif.locator("#undesirable-state").inner_text())[0])
    assert 1 <= share < 100
    assert whatif.locator("#undesirable-stop").is_hidden() and whatif.locator("#undesirable-run").is_enabled()
    expect(whatif.locator("#undesirable-out dl")).to_contain_text("Gain from its rivals")
    whatif.wait_for_timeout(1500)
    assert f"{share} %" in whatif.locator("#undesirable-state").inner_text(), "it went on after Stop"


def test_what_does_it_need(whatif: Page) -> None:
    whatif.locator("#whatif-needs summary").click()
    whatif.locator("#needs-share").fill("15")
    whatif.click("#needs-run")
    expect(whatif.locator("#needs-random")).to_be_visible()
    before, hot, control = (float(whatif.locator(f"#needs-{name}").inner_text().strip("<").split()[0])
                            for name in ("before", "hot", "random"))
    assert before == pytest.approx(100 * state(whatif, "picture.result.classes[0].probability"), abs=0.2)
    assert hot < control, f"without the hottest {hot}, without a random part {control}"
    whatif.locator("#needs-out").scroll_into_view_if_needed()
    screenshot(whatif, "whatif-needs")


def test_save_load_and_export(whatif: Page, tmp_path: Path) -> None:
    radius(whatif, 40)
    settled(whatif, lambda: stroke(whatif, *CUP))
    edited = rows(whatif)
    with whatif.expect_download() as waiting:
        whatif.click("#whatif-save")
    saved = tmp_path / "edit.json"
    waiting.value.save_as(saved)
    held = json.loads(saved.read_text())
    assert set(held) == {"kind", "picture", "title", "size", "fill", "params", "mask"}
    assert held["picture"] == state(whatif, "picture.result.fingerprint") and saved.stat().st_size < 100_000
    with whatif.expect_download() as waiting:
        whatif.click("#whatif-export")
    waiting.value.save_as(tmp_path / "both.png")
    both, size = cv2.imread(str(tmp_path / "both.png")), state(whatif, "picture.size")
    assert both is not None and both.shape == (size[1], 2 * size[0] + 12, 3)
    settled(whatif, lambda: whatif.click("#whatif-reset"))
    settled(whatif, lambda: whatif.set_input_files("#whatif-file", saved))
    assert rows(whatif) == edited
    open_preset(whatif, "cat")
    expect(whatif.locator(".tile").first).to_be_visible()
    whatif.set_input_files("#whatif-file", saved)
    expect(whatif.locator("#alert")).to_contain_text("belongs to another picture")
    saved.write_text("{}")
    whatif.set_input_files("#whatif-file", saved)
    expect(whatif.locator("#alert")).to_contain_text("no edit saved by this page")


def test_a_full_mask_is_explained_and_nothing_is_lost(whatif: Page) -> None:
    settled(whatif, lambda: stroke(whatif, (0.3, 0.4), (0.5, 0.4)))
    whatif.click("[data-tool=rectangle]")
    for corner in ((-0.2, -0.2), (1.2, -0.2), (-0.2, 1.2)):
        settled(whatif, lambda corner=corner: stroke(whatif, (0.5, 0.5), corner))  # type: ignore[misc]
    quarter_left = rows(whatif)
    stroke(whatif, (0.5, 0.5), (1.2, 1.2))
    expect(whatif.locator("#alert")).to_contain_text("whole picture is erased")
    settled(whatif, lambda: whatif.click("#whatif-undo"))
    assert rows(whatif) == quarter_left


def test_the_tour_once_and_by_keyboard(page: Page) -> None:
    page.click("#tab-whatif")
    tour = page.locator("#tour")
    expect(tour).to_contain_text("1 of 6")
    expect(page.locator("#whatif-empty")).to_contain_text("Freeze the camera or open a picture")
    screenshot(page, "whatif-tour")
    expect(page.locator("#tour-next")).to_be_focused()
    for i in range(2, 7):
        page.keyboard.press("Enter" if i % 2 else "ArrowRight")
        expect(tour).to_contain_text(f"{i} of 6")
    page.keyboard.press("ArrowLeft")
    expect(tour).to_contain_text("5 of 6")
    page.keyboard.press("Escape")
    expect(tour).to_be_hidden()
    page.reload()
    until(page, "state.connection === 'open' && !state.configuring", seconds=60)
    page.click("#tab-whatif")
    expect(page.locator("#whatif-empty")).to_be_visible()
    page.wait_for_timeout(300)
    assert tour.is_hidden()


def test_boxes_that_vanish(page: Page) -> None:
    page.click("#tab-detect")
    until(page, "state.configured?.task === 'detect' && !state.configuring", seconds=60)
    page.locator("#strip li.preset button", has_text="Bus").click()
    until(page, "state.result?.task === 'detect' && state.picture?.result?.boxes?.length > 0")
    page.click("#tab-whatif")
    page.click("#tour-skip")
    page.select_option("#whatif-fill", "mean_colour")
    page.click("[data-tool=box]")
    x0, y0, x1, y1 = state(page, "picture.result.boxes[0].box")
    width, height = state(page, "picture.size")
    place = at(page, (x0 + x1) / 2 / width, (y0 + y1) / 2 / height)
    settled(page, lambda: page.mouse.click(*place))
    assert current(page, "now.mask.share") > 0
    expect(page.locator(".whatif-vanished")).to_be_visible()
    expect(page.locator("#whatif-note")).to_contain_text("not in the modified picture any more")
    screenshot(page, "whatif-boxes")


def test_touch_and_a_narrow_screen(browser: Browser, server: Server) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    watched = Watched(page, server)
    visit(page, server)
    open_preset(page, "coffee")
    page.click("#tab-whatif")
    page.click("#tour-skip")
    page.select_option("#whatif-fill", "telea")
    place = at(page, 0.5, 0.5)
    settled(page, lambda: page.touchscreen.tap(*place))
    assert current(page, "now.mask.share") > 0
    wide = page.evaluate("""[...document.querySelectorAll('body *')].filter((n) => n.offsetParent
        && n.getBoundingClientRect().right > 391).map((n) => n.id || n.className)""")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, f"too wide: {wide}"
    screenshot(page, "whatif-phone")
    context.close()
    assert not watched.problems


def test_two_visitors_see_their_own_pictures(browser: Browser, server: Server) -> None:
    """Both edit at once under the same numbers; each gets its own picture back."""
    pages = []
    for name in ("coffee", "cat"):
        page = browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
        visit(page, server)
        open_preset(page, name)
        page.click("#tab-whatif")
        page.click("#tour-skip")
        page.select_option("#whatif-fill", "telea")
        pages.append(page)
    for page in pages:
        stroke(page, (0.3, 0.5), (0.5, 0.5))
    for page, best in zip(pages, ("espresso", "cat"), strict=True):
        until_true(page, FINAL)
        assert best in current(page, "now.edit.before.classes[0].label")
        far = page.evaluate("""import('/static/js/whatif.js').then((m) => {
            const { bitmap, picture, mask } = m.current();
            const pixels = (source) => { const canvas = new OffscreenCanvas(...picture.size);
                const ctx = canvas.getContext('2d'); ctx.drawImage(source, 0, 0);
                return ctx.getImageData(0, 0, ...picture.size).data; };
            const [a, b, m2] = [pixels(picture.bitmap), pixels(bitmap), pixels(mask.canvas)];
            let sum = 0, count = 0;
            for (let i = 0; i < a.length; i += 4) {
                if (!m2[i + 3]) { sum += Math.abs(a[i] - b[i]); count += 1; } }
            return sum / count; })""")
        assert far < 8, f"outside its own hole the picture differs by {far} grey levels"
        page.context.close()
