"""What this server did and holds, for Prometheus. Counting is cheap; the rest waits until somebody asks."""
from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Flask

BOUNDS = (1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 10000.0)     # milliseconds


class Meter:
    """Plain numbers that only grow. A frame costs a few microseconds here."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.counts: Counter[tuple[str, str]] = Counter()
        self.stages: dict[str, list[int]] = {}
        self.sums: Counter[str] = Counter()

    def count(self, what: str, of: str) -> None:
        """One more: a frame of a task, a drop of a code, a refusal for a reason."""
        with self._lock:
            self.counts[what, of] += 1

    def said(self, event: str, fields: dict[str, Any]) -> None:
        """What a client was told, by the message itself."""
        if event == "result" and "id" not in fields:
            with self._lock:
                self.counts["frames", str(fields.get("task"))] += 1
                for stage, milliseconds in fields.get("ms", {}).items():
                    self._took(stage, milliseconds)
        elif event == "explanation" and fields.get("live"):
            with self._lock:
                self.counts["explanations", str(fields.get("method"))] += 1
                self._took("explain", fields.get("ms", 0.0))
        elif event == "explanation" and fields.get("done"):
            self.count("explanations", str(fields.get("method")))
        elif event == "dropped":
            self.count("drops", str(fields.get("code")))
        elif event == "error":
            self.count("errors", str(fields.get("code")))

    def _took(self, stage: str, milliseconds: float) -> None:
        buckets = self.stages.setdefault(stage, [0] * (len(BOUNDS) + 1))
        buckets[bisect_left(BOUNDS, milliseconds)] += 1
        self.sums[stage] += milliseconds  # type: ignore[assignment]

    def copy(self) -> tuple[dict[tuple[str, str], int], dict[str, list[int]], dict[str, float]]:
        """Everything at one moment."""
        with self._lock:
            return dict(self.counts), {s: list(b) for s, b in self.stages.items()}, dict(self.sums)


COUNTED = {
    "frames": ("Pictures that were looked at", "task"),
    "explanations": ("Maps that were finished, live ones too", "method"),
    "drops": ("Pictures whose turn never came", "code"),
    "errors": ("Errors that clients were told", "code"),
    "refused": ("Requests, connections and messages that were not let in", "reason"),
}


def exposition(app: Flask) -> tuple[bytes, str]:
    """The text that Prometheus reads, and its content type. The registry is this answer's own."""
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Collected(app))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Collected:
    """What prometheus_client calls a collector."""

    def __init__(self, app: Flask):
        self._app = app

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
            InfoMetricFamily,
        )

        counts, stages, sums = self._app.extensions["meter"].copy()
        for name, (words, label) in COUNTED.items():
            family = CounterMetricFamily(f"seewhy_{name}", words, labels=[label])
            for (what, of), number in sorted(counts.items()):
                if what == name:
                    family.add_metric([of], number)
            yield family
        took = HistogramMetricFamily("seewhy_stage_milliseconds", "What a live picture took, stage by stage",
                                     labels=["stage"])
        for stage, buckets in sorted(stages.items()):
            took.add_metric([stage], _grown(buckets), sums[stage])
        yield took
        live = self._app.extensions.get("live")
        if live is None:
            return
        figures, rooms = live.engine.figures(), getattr(live, "rooms", None)
        for name, words, number in (
                ("clients", "Pages that are open", len(live.sessions)),
                ("viewers", "Of these, those that follow a room", rooms.viewers if rooms else 0),
                ("oldest_frame_seconds", "How long the longest waiting picture has waited", figures.oldest),
                ("waiting_frames", "Pictures that wait for their turn", figures.frames),
                ("waiting_requests", "Explanations and edits under way", figures.requests),
                ("kept_bytes", "Kept pictures of all clients", live.pictures.bytes),
                ("cache_bytes", "Looks and explanations that are remembered", figures.cache_bytes)):
            yield GaugeMetricFamily(f"seewhy_{name}", words, number)
        for name, words, number in (("cache_hits", "What was remembered", figures.hits),
                                    ("cache_misses", "What had to be worked out", figures.misses)):
            yield CounterMetricFamily(f"seewhy_{name}", words, number)
        runs = InfoMetricFamily("seewhy_model", "The models that are here, and what runs them",
                                labels=["name"])
        for name, state in sorted(figures.models.items()):
            runs.add_metric([name], {"runs_in": state})
        yield runs


def _grown(buckets: list[int]) -> list[tuple[str, float]]:
    """Each bound with how many were at most that, which is what Prometheus calls a histogram."""
    total, rows = 0, []
    for bound, number in zip([*map(str, BOUNDS), "+Inf"], buckets, strict=True):
        total += number
        rows.append((bound, float(total)))
    return rows
