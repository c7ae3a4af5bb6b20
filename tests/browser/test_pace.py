"""When the next picture is taken; clock, model and line are made up, so that nothing here takes time."""
from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

# A server with one model, `others` who are always served in between, a line and a camera; all times in ms.
WORLD = """async (given) => {
    const { createPace } = await import('/static/js/pace.js');
    const { model, map, uneven, taking, line, others, rate, count } = given;
    const pace = createPace(), coming = [], flights = new Set(), forms = [];
    let now = 0, number = 0, seed = 1, serial = 0, slot = null, after = null, turn = 0, timer = 0;
    let working = false, capturing = false, answered = 0, most = 0, dropped = 0, busy = 0, from = [0, 0];
    let lineFree = 0;
    const ages = [];
    const dice = () => { seed = (seed * 1664525 + 1013904223) % 2 ** 32; return seed / 2 ** 31 - 1; };
    const later = (ms, then) => coming.push({ at: now + ms, number: number += 1, then });
    const work = (ms, then) => { working = true; later(ms, () => { working = false; then(); serve(); }); };

    function serve() {
        if (working) return;
        if (turn < others) { turn += 1; work(model, () => {}); return; }
        turn = 0;
        if (after) { const then = after; after = null; work(map, then); busy += map; return; }
        if (!slot) { if (others) work(model, () => {}); return; }
        const picture = slot, own = model * (1 + uneven * dice()), wait = now - slot.came;
        slot = null;
        busy += own;
        work(own, () => later(line, () => {
            flights.delete(picture.seq);
            answered += 1;
            if (answered === count / 2) from = [now, busy];
            const ms = { wait, decode: 0, prepare: 0, encode: own, predict: 0 };
            pace.answered(picture, { ms, follows: map > 0 }, now, flights.size > 0);
            if (!map) ages.push(now - picture.taken);
            take();
        }));
        if (map) after = () => later(line, () => { pace.explained(map); ages.push(now - picture.taken); });
    }

    function send(picture, bytes) {
        const sent = { ...picture, seq: serial += 1, at: now };
        pace.sent(now, flights.size === 0);
        flights.add(sent.seq);
        most = Math.max(most, flights.size);
        lineFree = Math.max(now, lineFree) + bytes / rate;
        later(lineFree - now + line, () => {
            const old = slot;
            slot = { ...sent, came: now };
            if (old) later(line, () => { dropped += 1; flights.delete(old.seq); pace.passed(now); take(); });
            serve();
        });
    }

    function take() {
        const mine = timer += 1;
        if (capturing || flights.size >= 2) return;
        const wait = flights.size ? Math.max(0, pace.due() - now, lineFree > now ? 5 : 0) : 0;
        if (wait > 0) {
            if (wait < Infinity) later(wait, () => { if (mine === timer) take(); });
            return;
        }
        capturing = true;
        const start = now, { side } = pace.form();
        forms.push(side);
        later(taking * (1 + 0.3 * dice()), () => {
            capturing = false;
            pace.encoded(now - start);
            send({ taken: start }, 36_000 * (side / 640) ** 2);
            take();
        });
    }

    serve();
    take();
    while (answered < count && coming.length) {
        coming.sort((a, b) => a.at - b.at || a.number - b.number);
        const { at, then } = coming.shift();
        now = at;
        then();
    }
    const old = ages.slice(ages.length / 2).sort((a, b) => a - b);
    return { busy: (busy - from[1]) / (now - from[0]), age: old[old.length >> 1], most, dropped, answered,
        side: forms.at(-1) };
}"""
USUAL = {"model": 25, "map": 4, "uneven": 0.2, "taking": 10, "line": 2, "others": 0, "rate": 1e9,
         "count": 400}


def lived(page: Page, **other: float) -> dict[str, Any]:
    return page.evaluate(WORLD, {**USUAL, **other})


@pytest.mark.parametrize("world", [{}, {"map": 0}, {"uneven": 0.6}, {"model": 80, "map": 10}, {"line": 8},
                                   {"model": 16, "taking": 12}], ids=str)
def test_the_model_is_never_idle_and_pictures_are_new(page: Page, world: dict[str, float]) -> None:
    seen = lived(page, **world)
    given = {**USUAL, **world}
    assert seen["busy"] >= 0.97 and seen["most"] == 2 and seen["dropped"] <= 1, seen
    assert seen["age"] <= 2 * (given["model"] + given["map"]) + 15, seen
    assert seen["side"] == 640


def test_it_is_not_the_waiting_that_makes_the_model_busy(page: Page) -> None:
    """With an even model the waiting picture is there just before its turn, not a whole turn before."""
    seen = lived(page, model=100, map=0, uneven=0.02)
    assert seen["busy"] >= 0.99 and seen["age"] <= 100 + 10 + 4 + 40, seen


def test_beside_others_pictures_are_not_sent_to_be_dropped(page: Page) -> None:
    assert lived(page, others=3)["dropped"] <= 20


@pytest.mark.parametrize("rate, smallest, largest",
                         [(1e9, 640, 640), (400, 640, 640), (60, 224, 480), (15, 160, 320)])
def test_a_thin_line_gets_smaller_pictures(page: Page, rate: float, smallest: int, largest: int) -> None:
    """`rate` is in bytes a millisecond."""
    seen = lived(page, rate=rate, count=120)
    assert smallest <= seen["side"] <= largest and seen["most"] <= 2 and seen["answered"] == 120, seen
