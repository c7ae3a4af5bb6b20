"""Why it sees that: METHODS, and explain() for one frame and one target."""
from __future__ import annotations

from models import threads  # noqa: F401  (before torch, whose threads read it once)

# isort: split
from typing import Any

import numpy as np

from explainers import (  # noqa: F401  (importing a room registers its methods)
    adversarial,
    attention,
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
from explainers.needs import lacks, offered
from explainers.target import NotInThisPicture, Question, parse, resolve
from models.base import Model, Target

__all__ = ["METHODS", "PREFERRED", "Explanation", "Look", "Method", "NotInThisPicture", "Question", "explain",
           "find_method", "lacks", "method", "offered", "parse", "preferred", "resolve", "steps"]

# What answers first when nobody chose. A box's evidence is a place: pooled over the map it often cancels out.
PREFERRED = {"classify": "grad_cam", "detect": "odam", "caption": "grad_cam"}
WITHOUT_GRADIENTS = {"classify": "rise", "detect": "d_rise", "caption": "rise"}
GROUPS = ("maps", "gradients", "perturbation", "attacks", "what if", "checks")      # as the page lists them
for _name in sorted(METHODS, key=lambda name: GROUPS.index(METHODS[name].group)):
    METHODS[_name] = METHODS.pop(_name)


def preferred(model: Model) -> str:
    """The method that answers first about this model."""
    first = PREFERRED[model.info.task]
    return first if lacks(METHODS[first], model) is None else WITHOUT_GRADIENTS[model.info.task]


def explain(model: Model, frame: np.ndarray, method: str, target: Target | str | None = None,
            settings: dict[str, Any] | None = None, **params: Any) -> Explanation:
    """The finished explanation; target None is the top class, the best box, the whole caption."""
    find_method(method, model.info.task, model)
    question = target if isinstance(target, Target) else parse(target, model.info.task)
    look = Look(model, frame, settings)
    found = question if isinstance(question, Target) else resolve(question, look)
    *_, last = steps(look, method, found, params)
    return last
