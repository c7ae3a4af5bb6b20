"""What the verbs that look share: which model looks at which files, and pictures from disk."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import models
from cli.lines import WrongCall, progress_bar
from explainers import Look
from models.base import BadInput, Model, ModelInfo, Prediction, checked
from serving.engine import Wish
from serving.settings import Settings
from serving.work import Work


@dataclass(frozen=True)
class Asked:
    """Which model looks at which files, and how."""

    files: Sequence[Path]
    task: str | None = None
    model: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def info_of(settings: Settings, catalog: dict[str, ModelInfo], asked: Asked) -> ModelInfo:
    """The model that is meant: by its name, or the user's own file's, or the task's embedded one."""
    if asked.model is None:
        files = tuple(own for own in settings.own if own.files)
        own = [info for name, info in models.catalog(files).items() if name not in models.catalog()
               and asked.task in (None, info.task)] if files else []
        return own[-1] if own else catalog[models.default(asked.task or "classify")]
    if asked.model not in catalog:
        raise WrongCall(f"there is no model {asked.model!r}; there are {', '.join(catalog)}")
    info = catalog[asked.model]
    if asked.task not in (None, info.task):
        valid = [name for name, other in catalog.items() if other.task == asked.task]
        raise WrongCall(f"{info.name} does not {asked.task}; use {', '.join(valid)}" if valid else
                        f"there is no task {asked.task!r}; there are "
                        f"{', '.join(dict.fromkeys(i.task for i in catalog.values()))}")
    return info


def prepared(settings: Settings, asked: Asked) -> tuple[Work, Wish]:
    """What works, and what is wished for, checked; the model is not loaded yet."""
    work = Work(settings)
    info = info_of(settings, work.shelf.catalog, asked)
    return work, Wish(info.task, info.name, checked(info.settings, asked.settings, info.title))


def loaded(work: Work, wish: Wish) -> Model:
    """The model of a wish, with a bar while it comes."""
    tell = progress_bar()
    work.shelf.watch(wish.model, lambda m: tell(m["text"], m["done"], m["total"]), lambda future: None)
    return work.shelf.ask(wish.model, again=False).result()


def read_file(file: Path) -> bytes:
    """The bytes of a picture file, or a sentence that says why not."""
    try:
        size = file.stat().st_size
        if not file.is_file():                 # reading a pipe would wait for ever
            raise BadInput(f"cannot be read: it is a {'directory' if file.is_dir() else 'device or a pipe'}, "
                           "not a file")
        if size > Settings.upload_bytes:
            raise BadInput(f"a picture may have {Settings.upload_bytes / 1e6:g} MB, got {size / 1e6:.1f} MB; "
                           "save it smaller")
        return file.read_bytes()
    except OSError as problem:
        raise BadInput(f"cannot be read: {problem.strerror or problem}") from problem


def described(file: Path, look: Look) -> dict[str, Any]:
    """The shape that `predict --json` and `result` share."""
    return {"file": str(file), "task": look.model.info.task, "model": look.model.info.name,
            **look.prediction.describe(), "ms": look.ms}


def in_words(seen: Prediction) -> str:
    """A prediction for people."""
    if seen.task == "classify":
        return ", ".join(f"{c.label} {c.probability:.1%}" for c in seen.classes)
    if seen.task == "detect":
        return "; ".join(f"{b.label} {b.confidence:.0%} at {', '.join(f'{v:.0f}' for v in b.box)}"
                         for b in seen.boxes) or "nothing found above the threshold"
    return seen.caption
