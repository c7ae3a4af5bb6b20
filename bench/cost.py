"""What an explanation costs over the bare work it stands on."""
from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench.browser import photograph
from bench.loaded import loaded
from bench.table import Row, took_at_most
from explainers import Explanation, Look, Question, resolve, steps
from explainers.pixels import pixel_gradient
from models import compiled
from models.base import Target


def rows(quick: bool) -> Iterator[Row]:
    """The classifier's methods: one-pass maps over seeing alone, saliency over its bare gradient."""
    frame, model = photograph("cat"), loaded("efficientnet-lite0")
    look = Look(model, frame)
    target = resolve(Question(), look)

    def mapped(name: str) -> None:
        finish(Look(model, frame), name, target)

    with compiled.in_torch():
        for name in ("grad_cam", "counterfactual_grad_cam", "grad_cam_plus_plus", "layer_cam", "eigen_cam"):
            yield took_at_most(f"predict + {name} / predict, both in torch", partial(mapped, name),
                               lambda: Look(model, frame), 1.05)
    yield took_at_most("predict + grad_cam / predict, as it is served", partial(mapped, "grad_cam"),
                       lambda: Look(model, frame), 1.05,
                       "the same map over a prediction that is several times faster")
    yield took_at_most("saliency / a bare forward and input gradient",
                       lambda: finish(look, "saliency", target),
                       lambda: pixel_gradient(look.forward(target), look.x), 1.05)


def finish(look: Look, name: str, target: Target) -> Explanation:
    """The last explanation of a method."""
    *_, last = steps(look, name, target, {})
    return last
