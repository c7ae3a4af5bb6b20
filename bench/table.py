"""What every benchmark says: one row a claim, measured as a ratio within one run, with its interval.

A ratio far from its goal is decided by few repetitions, one near it by many: `paired` goes on until the
interval of the median of the ratios lies on one side of the limit, or the time of the row is over.
"""
from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import comb
from typing import Any

Clock = Callable[[], float]
SHOWN = 0.95                # what a printed interval covers
SURE = 0.99                 # what decides: it is looked at again and again, so it must be harder to leave
NARROW = 0.01               # where no limit is given: half the interval's width, as a share of the median


@dataclass(frozen=True)
class Effort:
    """How much may be spent on one row; `until` is when the whole room's time is over, on the row's clock."""

    least: int = 12         # pairs
    most: int = 1000        # pairs
    seconds: float = 12.0
    until: float = float("inf")


EFFORTS = {"usual": Effort(), "quick": Effort(least=6, most=60, seconds=3.0)}
_effort = Effort()


def spend(effort: Effort) -> None:
    """From now on every row of this process is measured with that effort."""
    global _effort
    _effort = effort


def left(clock: Clock = time.perf_counter) -> float:
    """Seconds that the room still has."""
    return _effort.until - clock()


class Ratio(float):
    """A median that knows its interval and of how many ratios it is."""

    interval: tuple[float, float]
    pairs: int

    def __new__(cls, ratios: Sequence[float]) -> Ratio:
        return known(statistics.median(ratios), interval(ratios), len(ratios))

    def __reduce__(self) -> tuple[Any, ...]:
        return known, (float(self), self.interval, self.pairs)


def known(value: float, between: tuple[float, float], pairs: int) -> Ratio:
    """A figure whose interval was found in another way."""
    made = float.__new__(Ratio, value)
    made.interval, made.pairs = between, pairs
    return made


def mean(values: Sequence[float]) -> Ratio:
    """The mean and its interval, for figures that are averaged and not timed."""
    middle = statistics.fmean(values)
    off = 1.96 * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return known(middle, (middle - off, middle + off), len(values))


@dataclass(frozen=True)
class Row:
    """One claim: what it is about, what was measured, the goal in words, and whether it is met."""

    what: str
    measured: float | str
    goal: str = ""
    met: bool | None = None                    # None: for information, nothing was promised
    note: str = ""

    @property
    def interval(self) -> tuple[float, float] | None:
        return getattr(self.measured, "interval", None)

    @property
    def limit(self) -> float | None:
        """The goal as a number, if it is one."""
        found = re.fullmatch(r"[<>]= (-?[\d.]+(?:e[-+]?\d+)?)", self.goal)
        return float(found[1]) if found else None

    @property
    def open(self) -> bool:
        """The interval lies on both sides of the limit: another run may say otherwise."""
        return (self.interval is not None and self.limit is not None
                and self.interval[0] <= self.limit <= self.interval[1])


def at_most(what: str, measured: float, limit: float, note: str = "") -> Row:
    """A claim that a figure is no larger than the limit."""
    return Row(what, measured, f"<= {limit:g}", bool(measured <= limit), note)


def at_least(what: str, measured: float, limit: float, note: str = "") -> Row:
    """A claim that a figure is no smaller than the limit."""
    return Row(what, measured, f">= {limit:g}", bool(measured >= limit), note)


def took_at_most(what: str, a: Callable[[], Any], b: Callable[[], Any], limit: float, note: str = "") -> Row:
    """A claim that `a` takes at most `limit` times as long as `b`, measured until that is decided."""
    return at_most(what, paired(a, b, limit=limit), limit, note)


def paired(a: Callable[[], Any], b: Callable[[], Any], repeats: int | None = None, limit: float | None = None,
           clock: Clock = time.perf_counter) -> Ratio:
    """How many times as long `a` takes as `b`: the median of ratios of runs that alternate.

    Neighbours in time share the machine's mood, and taking turns at going first cancels what is left of it.
    `repeats` bounds the pairs from above; what decides is the interval.
    """
    effort, start = _effort, clock()
    a()
    b()
    most = max(1, min(effort.most, repeats or effort.most))
    least = min(effort.least, most)
    ratios: list[float] = []
    while len(ratios) < most:
        if len(ratios) % 2:
            second, first = _seconds(b, clock), _seconds(a, clock)
        else:
            first, second = _seconds(a, clock), _seconds(b, clock)
        ratios.append(first / second)
        now = clock()
        if len(ratios) >= 3 and (now - start > effort.seconds or now > effort.until):
            break
        if len(ratios) >= least and len(ratios) % 2 == 0 and decided(ratios, limit):
            break
    return Ratio(ratios)


def decided(ratios: Sequence[float], limit: float | None) -> bool:
    """Whether more ratios would change nothing: the interval is on one side of the limit, or is narrow."""
    low, high = interval(ratios, SURE)
    if limit is not None:
        return not low <= limit <= high
    return high - low <= 2 * NARROW * statistics.median(ratios)


def interval(values: Sequence[float], sure: float = SHOWN) -> tuple[float, float]:
    """Between which of the sorted values the median of all such values lies, whatever their distribution.

    As many values lie below the true median as heads fall in as many throws of a coin. Too few values to be
    that sure give the widest there is, from the smallest to the largest.
    """
    ordered = sorted(values)
    first = _outermost(len(ordered), sure)
    return ordered[first], ordered[-1 - first]


@cache
def _outermost(count: int, sure: float) -> int:
    """How many of the sorted values may be left out at either end."""
    tail, out = 0.0, 0
    while out < (count - 1) // 2:
        tail += comb(count, out) / 2 ** count  # of the throws with at most `out` heads
        if 2 * tail > 1 - sure:
            break
        out += 1
    return max(0, out - 1)


def _seconds(work: Callable[[], Any], clock: Clock) -> float:
    start = clock()
    work()
    return max(clock() - start, 1e-9)


def figure(row: Row) -> str:
    """What was measured, with its interval."""
    if isinstance(row.measured, str):
        return row.measured
    between = "" if row.interval is None else " [{:.3g}, {:.3g}]".format(*row.interval)
    return f"{row.measured:.3g}{between}" if between else f"{row.measured:.4g}"


def line(row: Row) -> str:
    """One row as text: verdict, claim, figure, goal, note. A question mark: it is not decided."""
    verdict = {None: "", True: "ok", False: "SHORT"}[row.met] + "?" * row.open
    return f"{verdict:<6} {row.what:<62} {figure(row):>20}  {row.goal:<9} {row.note}".rstrip()


def summary(rows: Iterable[Row]) -> str:
    """How many goals are met, and which are not."""
    promised = [row for row in rows if row.met is not None]
    short = [row for row in promised if not row.met]
    if not short:
        return f"{len(promised)} of {len(promised)} goals met"
    return f"{len(promised) - len(short)} of {len(promised)} goals met; short of: " + "; ".join(
        f"{row.what} ({figure(row)}, goal {row.goal})" for row in short)
