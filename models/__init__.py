"""What the machine sees: `catalog()` lists every model, `load(name)` brings one to life."""
from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from models import (
    entries,
    threads,  # noqa: F401  (before torch, whose threads read it once)
)
from models.info import BadInput, ModelInfo, Progress, silent

if TYPE_CHECKING:
    from models.base import Model

# Each room has CATALOG (name to ModelInfo, cheap to import) and load(name, progress). A room that takes files
# of the user's has offer(own) -> ModelInfo, which checks them, and load_own(own, info, progress) too.
ROOMS = ("models.classifier", "models.yolov3", "models.yolo", "models.captioner")


@dataclass(frozen=True)
class Own:
    """What a user brings: the room that understands it, and its files. Plain data, for every process."""

    room: str                                  # a module's name; for a plugin the file itself
    files: tuple[Path, ...] = ()
    task: str = ""


def plugin(file: Path) -> ModuleType:
    """A user's file, run once in each process: its @method functions are registered by being run."""
    path = file.resolve()
    name = f"seewhy_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if path.suffix != ".py" or spec is None or spec.loader is None or not path.is_file():
        raise BadInput(f"a plugin must be a Python file (.py), got {str(file)!r}")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as problem:
        del sys.modules[name]
        raise BadInput(f"the plugin {file.name} could not be run: {type(problem).__name__}: {problem}"
                       ) from problem
    if hasattr(module, "CATALOG") and not callable(getattr(module, "load", None)):
        del sys.modules[name]
        raise BadInput(f"the plugin {file.name} has a CATALOG and must have load(name, progress), too")
    return module


def _room(name: str) -> Any:
    return plugin(Path(name)) if name.endswith(".py") else importlib.import_module(name)


def catalog(own: Iterable[Own] = ()) -> dict[str, ModelInfo]:
    """Every model by name, embedded ones of each task first, the user's own last."""
    return {name: info for name, (info, _, _) in _offered(own).items()}


def load(name: str, progress: Progress = silent, own: Iterable[Own] = ()) -> Model:
    """The model of that name, its weights fetched first if they are not here yet."""
    offered = _offered(own)
    if name not in offered:
        raise BadInput(f"there is no model {name!r}; there are {', '.join(offered)}")
    info, room, mine = offered[name]
    found = _room(room)
    return found.load(name, progress) if mine is None else found.load_own(mine, info, progress)


def default(task: str, own: Iterable[Own] = ()) -> str:
    """The embedded model of a task."""
    offered = catalog(own)
    tasks = sorted({info.task for info in offered.values()})
    if task not in tasks:
        raise BadInput(f"there is no task {task!r}; there are {', '.join(tasks)}")
    of_task = [name for name, info in offered.items() if info.task == task]
    return next((name for name in of_task if offered[name].embedded), of_task[0])


def _offered(own: Iterable[Own]) -> dict[str, tuple[ModelInfo, str, Own | None]]:
    """Each model's entry, its room, and the user's files where it is made of them; our rooms stay closed."""
    found: dict[str, tuple[ModelInfo, str, Own | None]] = {}
    mine = tuple(own)
    for name in (*ROOMS, *(o.room for o in mine if not o.files)):
        known = entries.of(name) if name in entries.ROOMS else getattr(_room(name), "CATALOG", {})
        more = {model: (info, name, None) for model, info in known.items()}
        if twice := found.keys() & more.keys():
            raise BadInput(f"{Path(name).name} brings a model {sorted(twice)[0]!r}, and there is one of that "
                           "name already; give it another")
        found |= more
    for one in mine:
        if one.files:
            info = _room(one.room).offer(one)
            found[info.name] = info, one.room, one
    return found
