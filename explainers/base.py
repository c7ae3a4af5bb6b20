"""One frame looked at once, what an explanation is, and the registry of methods."""
from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from explainers.needs import lacks
from models.base import BadInput, Canvas, Features, Model, Parameter, Prediction, Target, checked


class Look:
    """One frame seen by one model: canvas, features and prediction are computed once and shared."""

    def __init__(self, model: Model, frame: np.ndarray, settings: dict[str, Any] | None = None,
                 canvas: Canvas | None = None):
        self.model, self.frame = model, frame
        self.ms: dict[str, float] = {}
        self.settings = checked(model.info.settings, settings or {}, model.info.title)
        self.canvas: Canvas = self._timed("prepare", lambda: canvas or model.prepare(frame))
        with torch.no_grad():
            self.features: Features = self._timed("encode", lambda: model.encode(self.canvas.x))
            self.prediction: Prediction = self._timed(
                "predict", lambda: model.predict(self.features, self.canvas, **self.settings))

    def _timed(self, stage: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        done = work()
        x = done.x if isinstance(done, Canvas) else self.canvas.x
        if x.is_cuda:
            torch.cuda.synchronize(x.device)       # else it has only been asked for
        self.ms[stage] = round((time.perf_counter() - start) * 1000, 2)
        return done

    @property
    def x(self) -> Tensor:
        return self.canvas.x

    def forward(self, target: Target) -> Callable[[Tensor], Tensor]:
        """Pixels to the one number, (N,3,h,w) to (N,): what captum calls a forward_func."""
        return lambda x: self.model.score(self.model.encode(x), target)

    def feature_gradients(self, target: Target) -> tuple[tuple[Tensor, ...], Tensor]:
        """d score / d maps for every level, and the score: backward through the head alone."""
        still = self.features.each(Tensor.detach)
        leaves = tuple(level.requires_grad_() for level in still.maps)
        with torch.enable_grad():
            score = self.model.score(still, target)
            grads = torch.autograd.grad(score.sum(), leaves, allow_unused=True)
        return (tuple(torch.zeros_like(f) if g is None else g for f, g in zip(leaves, grads, strict=True)),
                score.detach())

    def after(self, x: Tensor) -> Prediction:
        """What the model says of an edited canvas (1x3xhxw)."""
        with torch.no_grad():
            return self.model.predict(self.model.encode(x), self.canvas, **self.settings)


@dataclass
class Explanation:
    """A map over the canvas, raw and signed until it is drawn, and what goes with it."""

    heat: np.ndarray                                              # h x w float32, canvas coordinates
    signed: bool = False
    image: np.ndarray | None = None                               # h x w x 3 in [0,1]: attacked or edited
    images: dict[str, np.ndarray] = field(default_factory=dict)   # further pictures by name, in [0,1]
    maps: dict[str, np.ndarray] = field(default_factory=dict)     # further maps by name, same absolute scale
    curves: dict[str, list[float]] = field(default_factory=dict)
    numbers: dict[str, float | str] = field(default_factory=dict)
    note: str = ""
    prediction: Prediction | None = None                          # of `image`
    progress: float = 1.0                                         # below 1 while better ones will follow
    method: str = ""                                              # the four below are filled by explain()
    target: Target | None = None
    raw_max: float = 0.0
    canvas: Canvas | None = None

    @property
    def done(self) -> bool:
        return self.progress >= 1

    @property
    def empty(self) -> bool:
        """No evidence at all: the map is zero, or is not a number anywhere."""
        return self.raw_max < 1e-12


@dataclass(frozen=True)
class Method:
    """A way to explain, with what it shows and what it cannot tell."""

    name: str
    title: str
    group: str                                  # maps, gradients, perturbation, attacks, what if, checks
    run: Callable[..., Explanation | Iterator[Explanation]]
    shows: str
    cannot: str
    parameters: tuple[Parameter, ...]
    tasks: tuple[str, ...]
    signed: bool
    live: bool                                  # cheap enough for every frame
    needs: frozenset[str]                       # what a model must offer, in the words of Model.offers

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "title": self.title, "group": self.group, "shows": self.shows,
                "cannot": self.cannot, "parameters": [p.describe() for p in self.parameters],
                "tasks": list(self.tasks), "signed": self.signed, "live": self.live,
                "needs": sorted(self.needs)}


METHODS: dict[str, Method] = {}
TASKS = ("classify", "detect", "caption")


def method(title: str, *, group: str, shows: str, cannot: str, tasks: tuple[str, ...] = TASKS,
           signed: bool = False, live: bool = False, needs: tuple[str, ...] = (),
           **parameters: Any) -> Callable[[Any], Any]:
    """Register run(look, target, **parameters); the page builds its controls from the declaration.

    `needs` are words of Model.offers; a method that only looks again at changed pictures needs none.
    """

    def register(run: Callable[..., Any]) -> Callable[..., Any]:
        declared = tuple(Parameter.declare(name, spec) for name, spec in parameters.items())
        METHODS[run.__name__] = Method(run.__name__, title, group, run, shows, cannot, declared, tasks,
                                       signed, live, frozenset(needs))
        return run

    return register


def find_method(name: str, task: str, model: Model | None = None) -> Method:
    """A method by name (dashes or underscores) that serves the task, and the model once there is one.

    Else a sentence that says which do, or what the model lacks.
    """
    found = METHODS.get(name.replace("-", "_"))
    if found is None or task not in found.tasks:
        valid = ", ".join(m.name for m in METHODS.values()
                          if task in m.tasks and (model is None or lacks(m, model) is None))
        raise BadInput(f"there is no method {name!r}; for {task} there are {valid}" if found is None else
                       f"{found.title} does not serve {task}; use one of {valid}")
    missing = lacks(found, model) if model else None
    if missing:
        raise BadInput(missing)
    return found


def steps(look: Look, name: str, target: Target, given: dict[str, Any]) -> Iterator[Explanation]:
    """Better and better explanations of one target; the last one has done=True."""
    chosen = find_method(name, look.model.info.task, look.model)
    out: Any = chosen.run(look, target, **checked(chosen.parameters, given, chosen.title))
    for explanation in out if inspect.isgenerator(out) else [out]:
        yield _finished(explanation, look, chosen, target)


def _finished(e: Explanation, look: Look, chosen: Method, target: Target) -> Explanation:
    """No heat on padding, nothing that is not a number, and the raw maximum before any scaling."""
    if e.heat.ndim != 2:
        raise ValueError(f"heat must be 2-D, got shape {e.heat.shape}")
    e.method, e.target, e.canvas, e.signed = chosen.name, target, look.canvas, chosen.signed
    broken = not np.isfinite(e.heat).all()
    e.heat = _inside_only(e.heat, look.canvas)
    e.maps = {name: _inside_only(m, look.canvas) for name, m in e.maps.items()}
    e.raw_max = float(np.abs(e.heat).max())
    if broken:
        e.note = f"The map holds values that are not numbers; nothing is drawn. {e.note}".strip()
    elif e.empty and e.done:
        e.note = f"No evidence: the map is zero everywhere. {e.note}".strip()
    return e


def _inside_only(heat: np.ndarray, canvas: Canvas) -> np.ndarray:
    out = np.zeros(canvas.size, np.float32)
    if np.isfinite(heat).all():
        out[canvas.inside] = heat[canvas.inside]
    return out
