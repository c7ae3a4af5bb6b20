"""What every benchmark says: one row a claim, measured as a ratio within one run."""
from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One claim: what it is about, what was measured, the goal in words, and whether it is met."""

    what: str
    measured: float | str
    goal: str = ""
    met: bool | None = None                    # None: for information, nothing was promised
    note: str = ""


def at_most(what: str, measured: float, limit: float, note: str = "") -> Row:
    """A claim that a figure is no larger than the limit."""
    return Row(what, measured, f"<= {limit:g}", measured <= limit, note)


def at_least(what: str, measured: float, limit: float, note: str = "") -> Row:
    """A claim that a figure is no smaller than the limit."""
    return Row(what, measured, f">= {limit:g}", measured >= limit, note)


def paired(a: Callable[[], Any], b: Callable[[], Any], repeats: int) -> float:
    """How many times as long `a` takes as `b`: the median of ratios of runs that alternate.

    Neighbours in time share the machine's mood, and taking turns at going first cancels what is left of it.
    """
    a()
    b()
    ratios = []
    for turn in range(max(1, repeats)):
        if turn % 2:
            second, first = _seconds(b), _seconds(a)
        else:
            first, second = _seconds(a), _seconds(b)
        ratios.append(first / second)
    return statistics.median(ratios)


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return max(time.perf_counter() - start, 1e-9)


def line(row: Row) -> str:
    """One row as text: verdict, claim, figure, goal, note."""
    verdict = {None: "     ", True: "ok   ", False: "SHORT"}[row.met]
    figure = row.measured if isinstance(row.measured, str) else f"{row.measured:.4g}"
    return f"{verdict}  {row.what:<62} {figure:>10}  {row.goal:<9} {row.note}".rstrip()


def summary(rows: Iterable[Row]) -> str:
    """How many goals are met, and which are not."""
    promised = [row for row in rows if row.met is not None]
    short = [row for row in promised if not row.met]
    if not short:
        return f"{len(promised)} of {len(promised)} goals met"
    return f"{len(promised) - len(short)} of {len(promised)} goals met; short of: " + "; ".join(
        f"{row.what} ({row.measured if isinstance(row.measured, str) else format(row.measured, '.4g')}, "
        f"goal {row.goal})" for row in short)
