"""What the machine sees: `catalog()` lists every model, `load(name)` brings one to life."""
from __future__ import annotations

import importlib
from functools import cache

from models.base import BadInput, Model, ModelInfo, Progress, silent

# Each room has CATALOG (name to ModelInfo, cheap to import) and load(name, progress).
ROOMS = ("models.classifier", "models.yolov3", "models.yolo", "models.captioner")


@cache
def _rooms() -> dict[str, str]:
    return {name: room for room in ROOMS for name in importlib.import_module(room).CATALOG}


def catalog() -> dict[str, ModelInfo]:
    """Every model by name, embedded ones of each task first."""
    return {name: importlib.import_module(room).CATALOG[name] for name, room in _rooms().items()}


def load(name: str, progress: Progress = silent) -> Model:
    """The model of that name, its weights fetched first if they are not here yet."""
    if name not in _rooms():
        raise BadInput(f"there is no model {name!r}; there are {', '.join(_rooms())}")
    return importlib.import_module(_rooms()[name]).load(name, progress)


def default(task: str) -> str:
    """The embedded model of a task."""
    tasks = sorted({info.task for info in catalog().values()})
    if task not in tasks:
        raise BadInput(f"there is no task {task!r}; there are {', '.join(tasks)}")
    return next(name for name, info in catalog().items() if info.task == task and info.embedded)
