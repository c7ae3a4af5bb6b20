"""The benchmark's statistics on timings that are made up: no clock runs here."""
from __future__ import annotations

import pickle
import statistics
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from bench import table
from bench.table import Effort, Ratio, Row, at_least, at_most, decided, interval, line, paired, summary


class Clock:
    """Time that passes only by work."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: Callable[[], float]) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds()

        return run


@pytest.fixture
def effort() -> Iterator[Callable[..., None]]:
    """Set what a row may cost, for one test."""
    before = table._effort
    yield lambda **given: table.spend(Effort(**given))
    table.spend(before)


def noisy(mean: float, share: float, seed: int) -> Callable[[], float]:
    draw = np.random.default_rng(seed)
    return lambda: float(mean * np.exp(share * draw.standard_normal()))


def test_the_interval_is_the_one_of_the_tables() -> None:
    values = list(range(1, 13))
    assert interval(values) == (3, 10) and interval(values, 0.99) == (2, 11)       # ranks of any textbook
    assert interval(range(1, 101), 0.95) == (40, 61)
    assert interval([2.0]) == (2.0, 2.0) and interval([3.0, 1.0, 2.0]) == (1.0, 3.0)


@pytest.mark.parametrize("count", [8, 13, 40])
def test_the_interval_holds_the_median_as_often_as_it_says(count: int) -> None:
    draw = np.random.default_rng(count)
    drawn = np.exp(draw.standard_normal((2000, count)))            # skewed, median 1
    held = statistics.mean(low <= 1 <= high for low, high in map(interval, drawn.tolist()))
    assert 0.94 <= held <= 0.995


def test_a_ratio_far_from_its_goal_is_soon_decided_and_a_near_one_later(effort) -> None:
    effort(least=12, most=2000, seconds=1e9)
    pairs = []
    for true in (0.5, 0.9, 0.99):
        clock = Clock()
        a, b = clock.work(noisy(true, 0.05, 1)), clock.work(noisy(1, 0.05, 2))
        ratio = paired(a, b, limit=1.0, clock=clock)
        pairs.append(ratio.pairs)
        assert ratio == pytest.approx(true, rel=0.03) and ratio.interval[1] < 1.0
    assert pairs[0] == 12 and pairs[2] > 4 * pairs[1] >= 4 * 12


def test_time_ends_what_does_not_decide_itself(effort) -> None:
    effort(least=12, most=10**6, seconds=60.0)
    clock = Clock()
    a, b = clock.work(noisy(1, 0.2, 1)), clock.work(noisy(1, 0.2, 2))
    ratio = paired(a, b, limit=1.0, clock=clock)
    assert 60 < clock.now < 64 and 25 < ratio.pairs < 32
    assert at_most("a over b", ratio, 1.0).open
    effort(until=clock.now - 1)
    assert paired(a, b, limit=1.0, clock=clock).pairs == 3             # the room's time is over


def test_the_old_call_still_bounds_the_pairs_and_stops_when_the_interval_is_narrow(effort) -> None:
    effort(least=12, most=1000, seconds=1e9)
    clock = Clock()
    assert paired(clock.work(lambda: 2.0), clock.work(lambda: 1.0), 200, clock=clock) == 2.0
    assert paired(clock.work(noisy(1, 0.5, 1)), clock.work(noisy(1, 0.5, 2)), 30, clock=clock).pairs == 30
    assert paired(clock.work(noisy(1, 0.5, 1)), clock.work(noisy(1, 0.5, 2)), 1, clock=clock).pairs == 1


def test_turns_at_going_first_are_taken(effort) -> None:
    effort(least=4, most=4)
    order: list[str] = []
    paired(lambda: order.append("a"), lambda: order.append("b"), clock=Clock())
    assert "".join(order) == "ab" + "abbaabba"


def test_decided() -> None:
    assert decided([0.8, 0.9] * 10, 1.0) and not decided([0.9, 1.1] * 10, 1.0)
    assert decided([1.0, 1.001] * 10, None) and not decided([0.9, 1.1] * 10, None)


def test_lines() -> None:
    ratio = Ratio([0.9, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96])
    said = line(at_most("x", ratio, 1.05))
    assert said.startswith("ok     x") and "0.93 [0.9, 0.96]" in said
    assert line(at_least("x", ratio, 0.94)).startswith("SHORT?")
    assert line(Row("x", "words", note="why")).endswith("why") and line(Row("x", 2.0)).startswith("       x")
    rows = [at_most("x", ratio, 1.0), at_least("y", 1.0, 2.0), Row("z", 1.0)]
    assert summary(rows) == "1 of 2 goals met; short of: y (1, goal >= 2)"
    assert summary(rows[:1]) == "1 of 1 goals met"
    assert [row.limit for row in (*rows, Row("w", 0.1, ">= -0.002"), at_most("v", 1e-6, 1e-5))] == [
        1.0, 2.0, None, -0.002, 1e-5]


def test_a_row_travels_between_processes() -> None:
    row = pickle.loads(pickle.dumps(at_most("x", Ratio([1.0, 2.0, 4.0]), 1.5)))
    assert row.measured == 2.0 and row.interval == (1.0, 4.0) and row.measured.pairs == 3 and row.open
