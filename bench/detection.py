"""What explaining a box costs: a map with every prediction, IG, letterboxing, the browser's share."""
from __future__ import annotations

import statistics
from collections.abc import Iterator

import cv2
import numpy as np
import torch

from bench import browser
from bench.browser import photograph
from bench.loaded import loaded
from bench.table import Ratio, Row, at_least, at_most, took_at_most
from explainers import Look, Question, faith, resolve, steps
from models.base import Model, Target

IG_STEPS = 25


def rows(quick: bool = False) -> Iterator[Row]:
    """Four ratios, and how much more the bus's map is about the bus than a random class's."""
    model, frame = loaded("yolov3-tiny"), photograph("bus")
    look = Look(model, frame)
    bus = next(b for b in look.prediction.boxes if b.label == "bus")
    target = Target(index=bus.index, anchor=bus.anchor)
    yield took_at_most("predict + ODAM of one box / predict", lambda: mapped(model, frame),
                       lambda: Look(model, frame), 1.10)
    yield integral_over_bare(look, target)
    yield letterbox_over_prediction(model, frame)
    yield own_over_random(look, target)
    yield round_trip_over_model(frame, 12 if quick else 80)


def mapped(model: Model, frame: np.ndarray) -> None:
    """Prediction and map of the surest box, as the live channel makes them."""
    look = Look(model, frame)
    *_, _ = steps(look, "odam", resolve(Question(), look), {})


def integral_over_bare(look: Look, target: Target) -> Row:
    """Integrated gradients with preview and completeness, over the gradients it cannot do without."""
    x = look.x.detach().clone().requires_grad_()

    def bare() -> None:
        for _ in range(IG_STEPS):
            torch.autograd.grad(look.forward(target)(x).sum(), x)

    def ours() -> None:
        *_, _ = steps(look, "integrated_gradients", target, {"steps": IG_STEPS})

    return took_at_most(f"IG-{IG_STEPS} on a box / {IG_STEPS} bare forward and backwards", ours, bare, 1.05)


def letterbox_over_prediction(model: Model, frame: np.ndarray) -> Row:
    """To the canvas and its boxes back, of a camera frame, over all of its prediction."""
    small = cv2.resize(frame, (640, 480), interpolation=cv2.INTER_AREA)
    boxes = np.random.default_rng(0).uniform(0, 416, (100, 4))
    return took_at_most("letterbox and back / prediction, 640x480",
                        lambda: model.prepare(small).to_frame(boxes), lambda: Look(model, small), 0.03)


def round_trip_over_model(frame: np.ndarray, repeats: int) -> Row:
    """From the page's `emit` to its boxes, over the milliseconds that the model itself took."""
    trips = browser.frame_trips(frame, "detect", repeats)
    own = [browser.of_model(ms) for _, ms in trips]
    ratio = Ratio([t / m for (t, _), m in zip(trips, own, strict=True)])
    return at_most("boxes through the browser: round trip / model time", ratio, 1.1,
                   f"median {statistics.median(t for t, _ in trips):.1f} ms "
                    f"over {statistics.median(own):.1f} ms")


def own_over_random(look: Look, target: Target) -> Row:
    """ODAM's positive evidence in the bus's box, over the median of twenty random classes in the same box."""
    box = next(b.box for b in look.prediction.boxes if b.anchor == target.anchor)

    def inside(asked: Target) -> float:
        *_, e = steps(look, "odam", asked, {})
        return faith.energy_in_box(e, box) * float(np.maximum(e.heat, 0).sum())

    others = statistics.median(inside(t) for t in faith.rivals(look, target, 20, seed=0))
    ratio = inside(target) / max(others, 1e-9)
    return at_least("evidence for `bus` in its box / for random classes", min(ratio, 999.0), 3)
