"""A whole lesson in real browsers: one presenter, five viewers with phones, all that happens there."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect

from tests.browser.drive import (
    Server,
    Watched,
    open_preset,
    screenshot,
    start_camera,
    state,
    until,
    until_true,
)

PHONE: ViewportSize = {"width": 360, "height": 740}
VIEWERS = 5
Come = Callable[[str], Page]


@pytest.fixture
def come(browser: Browser, server: Server) -> Iterator[Come]:
    """`come(link)` is a phone that opened the link; nothing may go wrong on any of them."""
    made: list[tuple[BrowserContext, Watched]] = []

    def opened(link: str) -> Page:
        context = browser.new_context(viewport=PHONE, color_scheme="light", has_touch=True, is_mobile=True)
        context.grant_permissions(["camera"], origin=server.url)
        page = context.new_page()
        made.append((context, Watched(page, server)))
        page.goto(link)
        return page

    yield opened
    for context, watched in made:
        context.close()
        assert not watched.problems and not watched.foreign


def room(page: Page, expression: str) -> object:
    return page.evaluate(f"import('/static/js/room/room.js').then(({{ room }}) => room.{expression})")


def until_room(page: Page, condition: str) -> None:
    until_true(page, f"import('/static/js/room/room.js').then(({{ room }}) => Boolean({condition}))")


def opened(page: Page) -> str:
    """The link of the room that the presenter opens."""
    page.click("#to-class")
    expect(page.locator("#room-dialog")).to_be_visible()
    return str(room(page, "link"))


def fits(page: Page) -> bool:
    """Nothing is wider than the screen."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def top(page: Page) -> str:
    return str(state(page, "result.classes[0].label"))


def test_a_whole_lesson(page: Page, come: Come) -> None:
    # The presenter opens a room; five viewers come by its link, one of them by typing it late.
    link = opened(page)
    words = link.rsplit("/", 1)[1].split("-")
    expect(page.locator("#room-large")).to_have_text(" ".join(words))
    until_true(page, "document.querySelector('#room-qr').naturalWidth > 0")
    screenshot(page, "room-qr-1280")
    page.click("#room-dialog .primary")
    first, *others = viewers = [come(link) for _ in range(VIEWERS - 1)]
    expect(page.locator("#room-viewers")).to_have_text(f"{VIEWERS - 1} viewers")
    expect(first.locator("#notice")).to_contain_text("Waiting for the presenter")
    for hidden in ("#camera", "#upload", "#tabs", "#model-choice", "#strip", "#why-actions", "#to-class"):
        expect(first.locator(hidden)).to_be_hidden()

    # Follow: live, then a still; a latecomer has all of it at once.
    start_camera(page)
    for viewer in viewers:
        until(viewer, "state.source === 'camera' && state.result && state.explanation?.live")
        assert top(viewer) == top(page)
    screenshot(first, "room-viewer-live-360")
    open_preset(page, "bus")
    late = come(link)
    viewers.append(late)
    for viewer in viewers:
        until(viewer, "state.source === 'still' && state.explanation?.done && !state.explanation.live")
        assert top(viewer) == top(page) and fits(viewer)
    theirs, mine = (p.evaluate("import('/static/js/state.js')"
                               ".then(({ state }) => [...state.explanation.heat])")
                    for p in (late, page))
    assert theirs == mine
    screenshot(page, "room-presenter-1280")

    # An own question: another class, seen by this viewer alone; own colours.
    first.locator("#sees-classify .bar-row").nth(1).tap()
    until(first, "!state.following && state.explanation?.done && state.target")
    asked = state(first, "explanation.title")
    assert asked != state(page, "explanation.title") and state(others[0], "explanation.title") != asked
    first.select_option("#palette", "viridis")
    expect(first.locator("#watch-words")).to_contain_text("Your own question")
    screenshot(first, "room-viewer-question-360")

    # A raised hand: seen, looked at, shown to all.
    first.tap("#watch-hand")
    expect(page.locator("#room-hands")).to_have_text("1 found something")
    page.click("#room-hands")
    page.get_by_role("button", name="Look", exact=True).click()
    expect(page.locator(".hand-picture")).to_be_visible()
    page.wait_for_timeout(300)
    screenshot(page, "room-hands-1280")
    page.get_by_role("button", name="Show to all").click()
    until(page, f"state.explanation?.done && state.explanation.title === '{asked}'")
    for viewer in others:
        until(viewer, f"state.explanation?.title === '{asked}'")
    expect(page.locator("#room-hands")).to_be_disabled()
    first.tap("#watch-back")
    until(first, f"state.following && state.explanation?.title === '{asked}'")

    # A poll: nobody sees a map before everybody tapped.
    open_preset(page, "cat")
    page.click("#room-poll")
    for viewer in viewers:
        expect(viewer.locator("#watch-words")).to_contain_text("Tap one spot")
        until(viewer, "state.picture && !state.explanation")
    boxes = [viewer.locator("#picture").bounding_box() for viewer in viewers]
    for i, (viewer, box) in enumerate(zip(viewers, boxes, strict=True)):
        assert box
        viewer.touchscreen.tap(box["x"] + box["width"] * (0.4 + 0.05 * i), box["y"] + box["height"] / 2)
    expect(page.locator("#room-words")).to_have_text(f"{VIEWERS} of {VIEWERS} tapped")
    assert not state(page, "overlay")
    screenshot(first, "room-viewer-poll-360")
    page.click("#room-poll")
    for viewer in viewers:
        until(viewer, "state.explanation?.done")
        until_room(viewer, f"room.taps?.points?.length === {VIEWERS}")
        expect(viewer.locator("#watch-words")).to_contain_text(f"of {VIEWERS} in the hottest tenth")
    expect(page.locator("#room-words")).to_contain_text("in the hottest tenth")
    page.wait_for_timeout(200)
    assert fits(page)
    screenshot(page, "room-poll-1280")
    screenshot(first, "room-viewer-taps-360")
    page.click("#room-poll")
    until_room(first, "room.poll === null")

    # Another tab: boxes for everybody, and a question about one of them.
    page.click("#tab-detect")
    until(page, "state.task === 'detect' && !state.configuring")
    open_preset(page, "bus")
    for viewer in viewers:
        until(viewer, "state.task === 'detect' && state.result?.boxes?.length && state.explanation?.done")
        expect(viewer.locator("#watch-tab")).to_have_text("Detect")
    first.locator("#sees-detect .bar-row").nth(1).tap()
    until(first, "!state.following && state.explanation?.done && state.target === 'box:1'")
    screenshot(first, "room-viewer-detect-360")

    # One goes, and comes back by the same link.
    others[0].goto("about:blank")
    expect(page.locator("#room-viewers")).to_have_text(f"{VIEWERS - 1} viewers")
    others[0].goto(link)
    until(others[0], "state.result?.boxes?.length && state.explanation?.done")
    expect(page.locator("#room-viewers")).to_have_text(f"{VIEWERS} viewers")

    # The presenter's page is loaded again: the room goes on.
    page.reload()
    until_room(page, "room.role === 'presenter'")
    until(page, "state.connection === 'open' && !state.configuring")
    expect(page.locator("#room-viewers")).to_have_text(f"{VIEWERS} viewers")
    open_preset(page, "coffee")
    for viewer in others:
        until(viewer, "state.task === 'classify' && state.result?.classes?.[0].label === 'espresso'")
    page.click("#room-close")
    expect(others[0].locator("#watch-words")).to_contain_text("closed this room")
    expect(page.locator("#room-bar")).to_be_hidden()


def test_what_stands_on_the_stage_when_the_room_is_opened_is_seen(page: Page, come: Come) -> None:
    open_preset(page, "coffee")
    viewer = come(opened(page))
    until(viewer, "state.source === 'still' && state.explanation?.done")
    assert top(viewer) == top(page)


def test_a_phone_lends_its_camera(page: Page, come: Come) -> None:
    link = opened(page)
    page.click("#room-dialog .primary")
    phone, other = come(link), come(link)
    until_room(phone, "room.role === 'viewer' && room.link")
    phone.tap("#watch-lend")
    page.click("#room-camera")
    until(page, "state.source === 'camera' && state.result && state.explanation?.shape")
    until(other, "state.source === 'camera' && state.result?.classes && state.explanation?.shape")
    expect(phone.locator("#watch-lend")).to_have_text("Stop my camera")
    page.click("#freeze")
    until(page, "state.source === 'still' && state.explanation?.done && !state.explanation.live")
    until(other, "state.source === 'still' && state.explanation?.done")
    screenshot(page, "room-lent-1280")
    page.click("#freeze")
    until(page, "state.source === 'camera' && state.explanation?.live")
    phone.tap("#watch-lend")
    until(page, "state.source !== 'camera'")
    expect(phone.locator("#watch-lend")).to_have_text("Lend my camera")
    expect(page.locator("#room-camera")).to_be_hidden()


def test_what_the_presenter_erases_is_seen(page: Page, come: Come) -> None:
    link = opened(page)
    page.click("#room-dialog .primary")
    viewer = come(link)
    open_preset(page, "cat")
    until(viewer, "state.explanation?.done")
    page.click("#tab-whatif")
    expect(viewer.locator("#watch-tab")).to_have_text("What if")
    box = page.locator("#tiles canvas").first.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5, steps=5)
    page.mouse.up()
    expect(viewer.locator("#tiles")).to_contain_text("Modified")
    until_true(viewer, "document.querySelector('#tiles .tile-text + *') !== null")
    viewer.wait_for_timeout(500)
    screenshot(viewer, "room-viewer-whatif-360")
    assert fits(viewer)


def test_a_wrong_code_is_said(come: Come, server: Server) -> None:
    viewer = come(f"{server.url}/join/apple-apple-apple-apple")
    expect(viewer.locator("#watch-words")).to_contain_text("No room has that code")
    assert fits(viewer)


def test_a_presenter_without_viewers_and_pages_without_rooms_are_as_before(page: Page) -> None:
    opened(page)
    page.click("#room-dialog .primary")
    page.click("#room-close")
    expect(page.locator("#room-bar")).to_be_hidden()
    open_preset(page, "cat")
    expect(page.locator("#to-class")).to_have_attribute("aria-pressed", "false")


def test_pages_reach_the_newest_picture(page: Page, come: Come, server: Server,
                                        show: Callable[[np.ndarray], None]) -> None:
    """A viewer whose page was held up shows what is on the presenter's stage, not what was before."""
    link = opened(page)
    page.click("#room-dialog .primary")
    viewer = come(link)
    visit_seq = "import('/static/js/state.js').then(({ state }) => state.result?.seq ?? 0)"
    start_camera(page)
    until(viewer, "state.result?.seq > 5")
    viewer.evaluate("(() => { const end = performance.now() + 1500; while (performance.now() < end); })()")
    page.click("#freeze")
    until(page, "state.picture?.seq && state.explanation?.done")
    until(viewer, f"state.picture?.seq === {state(page, 'picture.seq')}")
    assert viewer.evaluate(visit_seq) == state(page, "picture.seq")
