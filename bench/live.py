"""What living costs: the way from the browser to the model and back."""
from __future__ import annotations

import statistics
from collections.abc import Iterator

import numpy as np

from bench import browser
from bench.browser import photograph
from bench.table import Ratio, Row, at_most


def rows(quick: bool = False) -> Iterator[Row]:
    """From the page's `emit` to its `result`, a classified frame."""
    yield round_trip_over_model(photograph("cat"), 24 if quick else 120)


def round_trip_over_model(frame: np.ndarray, repeats: int) -> Row:
    """Over the milliseconds that the model itself took."""
    trips = browser.frame_trips(frame, "classify", repeats)
    whole, own = ([t for t, _ in trips], [browser.of_model(ms) for _, ms in trips])
    middle = {part: statistics.median(ms[part] for _, ms in trips) for part in ("decode", "wait", "encode")}
    return at_most("browser-side round trip / model time",
                   Ratio([t / m for t, m in zip(whole, own, strict=True)]), 1.1,
                   f"{statistics.median(whole):.1f} ms over {statistics.median(own):.1f} ms; of it "
                    + ", ".join(f"{part} {ms:.1f}" for part, ms in middle.items()))
