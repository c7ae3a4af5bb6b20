"""Captions in a real browser: a sentence under the moving picture, and every word's own evidence."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.browser.drive import heat, screenshot, state, until
from tests.conftest import DATA

Show = Callable[[np.ndarray], None]
ROW = "document.querySelectorAll('#strip li.row').length > 2"
LOADS = 60                          # seconds


@pytest.fixture
def before_camera(photographs: dict[str, np.ndarray]) -> np.ndarray:
    """A dev photograph with a dog, where there are any; else the astronaut."""
    captions = DATA / "flickr8k" / "captions.tsv"
    if not captions.is_file():
        return photographs["astronaut"]
    lines = (line.split("\t") for line in captions.read_text("utf-8").splitlines())
    name = next(name for split, name, text in lines if split == "dev" and "black dog" in text.lower())
    picture = cv2.imread(str(captions.parent / "images" / name), cv2.IMREAD_COLOR_RGB)
    assert picture is not None
    return picture


@pytest.fixture
def captioning(page: Page) -> Iterator[Page]:
    page.click("#tab-caption")
    until(page, "state.configured?.task === 'caption' && !state.configuring", seconds=LOADS)
    yield page


def words(page: Page, where: str = "#caption-words") -> list[str]:
    return [w for w in page.locator(f"{where} button:visible").all_inner_texts() if w]


def live_caption(page: Page, show: Show, picture: np.ndarray, besides: str = "true") -> Page:
    """The camera is on, sees that picture and has said what it is."""
    show(picture)
    page.click("#camera")
    until(page, f"state.source === 'camera' && state.result?.words && {besides}", seconds=60)
    return page


def done(page: Page, target: str | None = None) -> None:
    """The finished map of that target (of any, without one) is on the stage."""
    until(page, "state.picture?.result && state.explanation?.done", seconds=60)
    if target is not None:
        until(page, f"state.target === {target!r} && state.explanation?.target === {target!r}", seconds=60)
        until(page, "state.explanation?.done", seconds=60)


def test_the_heat_walks_along_the_live_sentence(captioning: Page, show: Show,
                                                before_camera: np.ndarray) -> None:
    page = live_caption(captioning, show, before_camera, "state.explanation?.shape")
    assert state(page, "method") == "word_maps"
    live = words(page)
    assert 3 <= len(live) <= 20 and " ".join(live) == state(page, "result.caption")
    seen: dict[str, np.ndarray] = {}
    for at in (0, 1, 2):
        until(page, f"""document.querySelectorAll('#caption-words button')[{at}].classList.contains('walked')
              && state.explanation?.title.startsWith('why')""", seconds=60)
        assert page.locator("#caption-words .walked").count() == 1
        seen[live[at]] = heat(page)
    screenshot(page, "caption-live")
    first, *others = seen.values()
    assert all(other.shape == first.shape for other in others)
    assert any(np.abs(first - other).max() > 0.1 * max(first.max(), other.max()) for other in others)
    page.emulate_media(reduced_motion="reduce")
    expect(page.locator("#caption-words .walked")).to_have_count(0)
    page.click("#camera")


def test_camera_to_caption_to_the_evidence_of_its_words(captioning: Page, show: Show,
                                                        before_camera: np.ndarray) -> None:
    page = live_caption(captioning, show, before_camera)
    expect(page.locator("#caption-words button").first).to_be_visible()
    page.locator("#caption-words button:visible").nth(1).click()          # from now on this word's, live
    until(page, "state.source === 'camera' && state.explanation?.target === 'word:1'")
    expect(page.locator("#caption-words .walked")).to_have_count(0)
    page.keyboard.press("Space")
    until(page, "state.source === 'still'")
    done(page)
    first = heat(page)
    assert state(page, "target").startswith("word:") and first.max() > 0
    until(page, ROW, seconds=60)
    screenshot(page, "caption-word")
    frozen = words(page)
    page.locator("#caption-words button:visible").nth(len(frozen) - 1).click()
    done(page, f"word:{len(frozen) - 1}")
    second = heat(page)
    moved = np.abs(first / first.max() - second / max(second.max(), 1e-9)).max()
    assert first.shape == second.shape and moved > 0.1
    page.click("#camera")


def test_words_can_be_walked_and_the_whole_caption_explained(captioning: Page) -> None:
    page = captioning
    page.locator("#strip li.preset button", has_text="astronaut").click()
    done(page)
    row = page.locator("#strip li.row")
    until(page, ROW, seconds=60)
    said = words(page)
    assert row.all_inner_texts() == said
    page.keyboard.press("ArrowRight")
    done(page, "word:0")
    page.keyboard.press("ArrowRight")
    done(page, "word:1")
    expect(page.locator("#why-target")).to_contain_text(said[1])
    expect(page.locator("#caption-words button").nth(1)).to_have_attribute("aria-pressed", "true")
    row.nth(2).locator("button").click()
    done(page, "word:2")
    page.click("#whole-caption")
    done(page, "caption")
    expect(page.locator("#speak")).to_have_attribute("aria-pressed", "false")


def test_a_word_shows_its_runners_up_and_why_not_them(captioning: Page) -> None:
    page = captioning
    page.locator("#strip li.preset button", has_text="astronaut").click()
    done(page)
    page.locator("#caption-words button").nth(1).hover()
    rivals = page.locator("#word-detail .rival")
    expect(rivals).to_have_count(4)
    rival = rivals.first.inner_text().split()[0]
    rivals.first.click()
    done(page, f"word:1/versus:{rival}")
    expect(page.locator("#why-target")).to_contain_text(f"not '{rival}'")


def test_another_caption_is_weighed_word_by_word(captioning: Page) -> None:
    page = captioning
    page.locator("#strip li.preset button", has_text="astronaut").click()
    done(page)
    page.fill("#typed-caption", "A dog runs in the snow!")
    page.keyboard.press("Enter")
    until(page, "state.target === 'caption/text:a dog runs in the snow'")
    assert words(page, "#typed-words") == ["a", "dog", "runs", "in", "the", "snow"]
    expect(page.locator("#typed-verdict")).to_contain_text("its own caption has")
    done(page)
    page.locator("#typed-words button").nth(1).click()
    done(page, "word:1/text:a dog runs in the snow")
    screenshot(page, "caption-typed")
    page.fill("#typed-caption", "a zyzzyva")
    page.keyboard.press("Enter")
    expect(page.locator("#typed-verdict")).to_contain_text("does not know 'zyzzyva'")


def test_an_attack_shows_the_new_caption_word_by_word(captioning: Page) -> None:
    page = captioning
    page.locator("#strip li.preset button", has_text="astronaut").click()
    done(page)
    page.select_option("#method", "fgsm")
    until(page, "state.explanation?.method === 'fgsm' && state.explanation.done", seconds=180)
    card = page.locator(".card-ace")
    expect(card.locator(".diff")).to_be_visible()
    assert card.locator(".changes li").count() == len(words(page))
    card.scroll_into_view_if_needed()
    screenshot(page, "caption-attack")
