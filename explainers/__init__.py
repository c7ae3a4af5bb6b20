"""Why it sees that: METHODS, and explain() for one frame and one target."""
from __future__ import annotations

from typing import Any

import numpy as np

from explainers import (  # noqa: F401  (importing a room registers its methods)
    adversarial,
    cam,
    gradient,
    parchgrad,
    perturbation,
    trust,
    undesirable,
    whatif,
    words,
)
from explainers.base import METHODS, Explanation, Look, Method, find_method, method, steps
from explainers.target import parse_target
from models.base import Model, Target

__all__ = ["METHODS", "PREFERRED", "Explanation", "Look", "Method", "explain", "find_method", "method",
           "parse_target", "steps"]

# What answers first when nobody chose. A box's evidence is a place: pooled over the map it often cancels out.
PREFERRED = {"classify": "grad_cam", "detect": "odam", "caption": "grad_cam"}
GROUPS = ("maps", "gradients", "perturbation", "attacks", "what if", "checks")      # as the page lists them
for _name in sorted(METHODS, key=lambda name: GROUPS.index(METHODS[name].group)):
    METHODS[_name] = METHODS.pop(_name)


def explain(model: Model, frame: np.ndarray, method: str, target: Target | str | None = None,
            settings: dict[str, Any] | None = None, **params: Any) -> Explanation:
    """The finished explanation; target None is the top class, the best box, the whole caption."""
    find_method(method, model.info.task)
    look = Look(model, frame, settings)
    *_, last = steps(look, method, parse_target(target, look), params)
    return last
