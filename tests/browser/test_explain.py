"""Why it sees that, in a real browser: targets, methods, sliders, colours, comparing, checking, stopping."""
from __future__ import annotations

import re

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.browser.drive import Watched, heat, open_preset, screenshot, stage_pixels, state, until


def choose(page: Page, method: str) -> None:
    """Choose a method and wait for its finished map."""
    page.select_option("#method", method)
    until(page, f"state.explanation?.done && state.explanation.method === '{method}'", seconds=60)


def test_pressing_a_class_changes_the_map(page: Page) -> None:
    open_preset(page, "cat")
    before, drawn = heat(page), stage_pixels(page)
    row = page.locator("#sees-classify .bar-row").nth(3)
    name = row.locator(".bar-label").inner_text()
    row.click()
    until(page, f"state.explanation?.done && state.explanation.title.includes('{name}')")
    assert np.abs(heat(page) - before).max() > 0.05 * before.max()
    page.wait_for_timeout(200)
    assert (stage_pixels(page) != drawn).any(2).mean() > 0.05, "the drawn heat must change with the class"
    expect(page.locator("#why-target")).to_have_text(name)
    expect(row).to_have_attribute("aria-pressed", "true")


def test_any_class_by_name_and_why_not_another(page: Page, watched: Watched) -> None:
    open_preset(page, "cat")
    page.get_by_role("combobox", name="Explain any class").fill("crane")
    expect(page.locator(".chooser li")).to_have_count(2)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    until(page, "state.explanation?.done && state.target === 'class:517'")
    page.get_by_role("combobox", name="and why not this class").fill("tabby")
    page.keyboard.press("Enter")
    until(page, "state.explanation?.done && state.explanation.title.includes('and not')")
    assert watched.of("explain")[-1]["target"] == "class:517/versus:281"
    expect(page.locator("#why-target")).to_have_text("crane and not tabby")


def test_controls_are_built_from_the_declared_parameters(page: Page, watched: Watched) -> None:
    open_preset(page, "cat")
    choose(page, "parchgrad")
    declared = page.evaluate("""import('/static/js/state.js').then(({ methodInfo }) =>
        methodInfo().parameters.map((p) => p.name))""")
    page.locator("#method-settings summary").click()
    built = page.locator("#method-params [data-param]")
    assert [built.nth(i).get_attribute("data-param") for i in range(built.count())] == declared
    first = heat(page)
    depth = page.locator("[data-param=depth]")
    depth.focus()
    page.keyboard.press("End")
    high = float(depth.get_attribute("max") or 0)
    until(page, f"state.params.depth === {high} && !state.explaining && state.explanation?.done", seconds=60)
    assert watched.of("explain")[-1]["params"]["depth"] == high
    assert np.abs(heat(page) - first).max() > 0
    page.select_option("[data-param=of]", "smoothgrad")
    until(page, "state.params.of === 'smoothgrad' && state.explaining")
    assert watched.of("explain")[-1]["params"] == state(page, "params")
    expect(page.locator("#numbers")).to_contain_text("Raw maximum")


def test_colour_strength_and_palette_stay_in_the_browser(page: Page, watched: Watched) -> None:
    open_preset(page, "coffee")
    page.wait_for_timeout(300)
    sent, first = len(watched.sent), stage_pixels(page).astype(int)
    page.select_option("#palette", "viridis")
    page.wait_for_timeout(200)
    second = stage_pixels(page).astype(int)
    assert np.abs(second - first).max() > 40
    page.locator("#opacity").fill("0.2")
    page.wait_for_timeout(200)
    third = stage_pixels(page).astype(int)
    assert np.abs(third - second).max() > 40
    page.keyboard.press("Escape")
    page.uncheck("#overlay")
    page.wait_for_timeout(200)
    plain = stage_pixels(page).astype(int)
    assert np.abs(plain - first).sum() > np.abs(third - plain).sum()
    assert len(watched.sent) == sent, f"sent {watched.sent[sent:]}"


def test_keys_lead_everywhere(page: Page) -> None:
    open_preset(page, "cat")
    page.keyboard.press("ArrowRight")
    until(page, "state.target === `class:${state.result.classes[0].index}`")
    page.keyboard.press("ArrowRight")
    until(page, "state.target === `class:${state.result.classes[1].index}` && state.explanation?.done")
    page.keyboard.press("o")
    expect(page.locator("#overlay")).not_to_be_checked()
    page.keyboard.press("o")
    method = state(page, "method")
    page.keyboard.press("m")
    until(page, f"state.method !== '{method}' && state.explanation?.done")
    page.keyboard.press("Shift+M")
    until(page, f"state.method === '{method}' && state.explanation?.done")
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    screenshot(page, "keys")
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    page.keyboard.press("1")
    until(page, "state.configured.task === 'detect' && !state.configuring", seconds=60)
    expect(page.locator("#tab-detect")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("2")
    until(page, "state.configured.task === 'classify' && state.result?.classes", seconds=60)
    expect(page.locator("#tab-classify")).to_have_attribute("aria-selected", "true")


def test_methods_side_by_side_share_one_scale(page: Page) -> None:
    open_preset(page, "cat")
    page.click("#compare")
    for method in ("layer_cam", "grad_cam_plus_plus", "eigen_cam"):
        page.check(f"#compare-dialog input[value={method}]")
    expect(page.locator("#compare-dialog input[value=saliency]")).to_be_disabled()
    screenshot(page, "compare-dialog")
    page.click("#compare-methods")
    expect(page.locator(".tile")).to_have_count(4)
    expect(page.locator(".tile-text", has_text="raw maximum")).to_have_count(4)
    scale, scales = page.evaluate("""import('/static/js/stage.js').then(({ tilesShown }) =>
        [tilesShown().scale, tilesShown().tiles.map((tile) => tile.explanation.scale)])""")
    assert len(set(scales)) == 4 and scale == max(scales)
    peaks = page.evaluate("""Promise.all([import('/static/js/stage.js'), import('/static/js/heat.js')]).then(
        ([{ tilesShown }, { heatCanvas }]) => tilesShown().tiles.map(({ explanation }) => {
            const canvas = heatCanvas(explanation, { scale: tilesShown().scale });
            const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            return Math.max(...data.filter((_, i) => i % 4 === 3));
        }))""")
    for peak, own in zip(peaks, scales, strict=True):
        assert abs(peak - 255 * (own / scale) ** 0.6) < 3, "full colour must mean one value in all"
    screenshot(page, "compare-methods")
    expect(page.locator("#strip li.frame")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator(".tile")).to_have_count(0)
    page.locator("#strip li.frame button").click()
    expect(page.locator(".tile")).to_have_count(4)


def test_two_classes_side_by_side(page: Page) -> None:
    open_preset(page, "cat")
    page.click("#compare")
    page.click("#compare-targets")
    expect(page.locator(".tile")).to_have_count(2)
    expect(page.locator(".tile-text", has_text="raw maximum")).to_have_count(2)
    names = page.locator(".tile strong").all_inner_texts()
    assert len(set(names)) == 2, f"two classes, got {names}"
    expect(page.locator(".tiles-scale")).to_contain_text("One scale: full colour is")


def test_a_long_method_shows_progress_and_stops(page: Page, watched: Watched) -> None:
    open_preset(page, "cat")
    page.select_option("#method", "rise")
    expect(page.locator("#busy")).to_be_visible()
    expect(page.locator("#busy-words")).to_have_text("RISE")
    until(page, "state.explanation?.method === 'rise' && state.explanation.progress < 1", seconds=60)
    page.click("#stop")
    expect(page.locator("#busy")).to_be_hidden()
    assert watched.of("stop"), "the server must hear that nobody waits any more"
    page.wait_for_timeout(700)
    assert state(page, "explanation.progress") < 1, "a stopped method must not go on"
    choose(page, "grad_cam")


def test_a_method_that_cannot_says_why(page: Page) -> None:
    open_preset(page, "cat")
    page.select_option("#method", "guided_backpropagation")
    expect(page.locator("#why-note")).to_contain_text("ReLU")
    expect(page.locator("#legend")).to_be_hidden()


def test_curves_are_drawn_beside_the_map(page: Page) -> None:
    open_preset(page, "coffee")
    page.click("#curves")
    expect(page.locator(".card-curves polyline[points]")).to_have_count(6, timeout=60_000)
    expect(page.locator(".card-curves")).to_contain_text("area")
    screenshot(page, "curves")
    page.click("#curves")
    expect(page.locator(".card-curves")).to_be_hidden()


def test_check_this_explanation(page: Page) -> None:
    open_preset(page, "coffee")
    page.click("#sanity")
    expect(page.locator("#tiles h2")).to_contain_text("what the model learned", timeout=60_000)
    expect(page.locator(".card-sanity dl")).not_to_be_empty()
    screenshot(page, "sanity")


def test_an_attack_shows_before_and_after(page: Page) -> None:
    open_preset(page, "cat")
    choose(page, "fgsm")
    expect(page.locator(".card-attack")).to_contain_text("→")
    expect(page.locator(".tile strong", has_text="After")).to_be_visible()
    screenshot(page, "attack")
    choose(page, "grad_cam")
    expect(page.locator(".card-attack")).to_be_hidden()


@pytest.mark.parametrize("live", [True, False])
def test_a_class_pressed_while_live(page: Page, live: bool) -> None:
    """A quick method follows the class on the moving picture; without Live the frame is frozen first."""
    page.click("#camera")
    until(page, "state.source === 'camera' && state.explanation?.live")
    if not live:
        page.uncheck("#live")
        until(page, "state.explanation === null")
    page.locator("#sees-classify .bar-row").nth(2).click()
    if live:
        until(page, "state.explanation?.live && state.explanation.target === state.target && state.target")
        assert state(page, "source") == "camera"
    else:
        until(page, "state.source === 'still' && state.explanation?.done && state.target")


def test_a_box_of_ones_own_measures_the_evidence(page: Page) -> None:
    open_preset(page, "coffee")
    stage = page.locator("#picture").bounding_box()
    assert stage
    middle, across, down = stage["x"] + stage["width"] / 2, stage["width"] * 0.16, stage["height"] * 0.5
    page.keyboard.down("Shift")
    page.mouse.move(middle - across, stage["y"] + down * 0.1)
    page.mouse.down()
    page.mouse.move(middle + across, stage["y"] + down * 1.2, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    expect(page.locator(".card-measure")).to_contain_text("of the evidence lies in your box")
    expect(page.locator(".card-measure")).to_contain_text("hottest point is inside")
    told = page.locator(".card-measure").inner_text()
    energy, area = (float(text) for text in re.findall(r"([\d.]+) %", told))
    assert energy > 1.3 * area, f"the cup holds {energy} % of the evidence on {area} % of the picture"
    page.keyboard.press("Escape")
    expect(page.locator(".card-measure")).to_be_hidden()
