"""What the command line does: list, fetch, predict, explain. Each returns its exit code.

0: done. 1: a file failed, the others are done. 2: a wrong call, raised as BadInput and told by app.py.
"""
from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import explainers
import models
from explainers import Explanation, Look, find_method, parse_target, render
from models import store
from models.base import BadInput, Model, ModelInfo, Prediction, Progress, checked
from serving import messages
from serving.frames import decode_upload
from serving.session import Settings

# Places that one picture has and another lacks; the empty text is the best box.
PLACES = {"classify": re.compile("(?!)"), "detect": re.compile(r"((box|candidate):\d+|near:[\d.]+,[\d.]+|)"),
          "caption": re.compile(r"(word:\d+|)")}


class WrongCall(BadInput):
    """What was asked for cannot be meant for any picture."""


@dataclass(frozen=True)
class Work:
    """Which model looks at which files, and how."""

    files: Sequence[Path]
    task: str | None = None
    model: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def offer_own(settings: Settings) -> None:
    """Put the user's own files into the catalog, where their rooms check them."""
    if settings.captioner or settings.vocabulary:
        if not (settings.captioner and settings.vocabulary):
            raise BadInput("an own captioner needs both --captioner FILE and --vocab FILE")
        from models import captioner
        captioner.offer_own(settings.captioner, settings.vocabulary)
    if settings.trusted_model:
        from models import yolo
        yolo.offer_own(settings.trusted_model)


def list_models(as_json: bool = False) -> int:
    """Every model with its size and licence, and whether it is here."""
    if as_json:
        for info in models.catalog().values():
            print(json.dumps({"name": info.name, "task": info.task, "title": info.title,
                              "megabytes": info.megabytes, "licence": info.licence, "source": info.source,
                              "embedded": info.embedded, "present": is_present(info)}))
        return 0
    rows = [("name", "task", "size", "embedded", "present", "licence")]
    rows += [(info.name, info.task, f"{info.megabytes:.1f} MB", "yes" if info.embedded else "no",
              "yes" if is_present(info) else "no", info.licence) for info in models.catalog().values()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] + [0]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def is_present(info: ModelInfo) -> bool:
    """Whether a model loads without a network."""
    return all(store.present(asset) for asset in info.assets)


def fetch(names: Iterable[str]) -> int:
    """Bring files here, by their own name or their model's; without names, all that is embedded."""
    catalog, wanted = models.catalog(), dict[str, None]()
    for name in names:
        if name not in catalog and name not in store.ASSETS:
            raise WrongCall(f"there is nothing called {name!r} to fetch; there are "
                            f"{', '.join(dict.fromkeys([*catalog, *store.ASSETS]))}")
        wanted.update(dict.fromkeys(catalog[name].assets if name in catalog else (name,)))
        if name in catalog and not catalog[name].assets:
            print(f"{name}: comes with the installed packages, nothing to fetch")
    if not names:
        wanted = dict.fromkeys(asset.name for asset in store.ASSETS.values() if asset.embedded)
    failed = 0
    for name in wanted:
        try:
            print(f"{name}: {store.fetch(name, progress_bar())}")
        except store.StoreError as problem:
            failed += 1
            _complain(str(problem))
    return int(failed > 0)


def predict(work: Work, as_json: bool = False) -> int:
    """What a model says of each file, a line each."""
    model, settings = _prepared(work)

    def one(file: Path) -> None:
        look = Look(model, read_picture(file), settings)
        if as_json:
            print(json.dumps(messages.plain(described(file, look)), ensure_ascii=False), flush=True)
        else:
            print(f"{file}: {in_words(look.prediction)}", flush=True)

    return _each(work.files, one)


def explain(work: Work, method: str | None, target: str | None, params: dict[str, Any], out: Path) -> int:
    """Why a model says it: for each file a picture with the map on it, the raw map, and all numbers."""
    task = _info(work).task
    method = method or explainers.PREFERRED[task]
    chosen = find_method(method, task)
    params = checked(chosen.parameters, params, chosen.title)
    model, settings = _prepared(work)
    out.mkdir(parents=True, exist_ok=True)
    names = unlike(work.files)

    def one(file: Path) -> None:
        start = time.perf_counter()
        look = Look(model, read_picture(file), settings)
        place = _target(target, look)
        tell = progress_bar()
        for e in explainers.steps(look, method, place, params):
            tell(f"{chosen.title}, {file.name}", round(100 * min(1, e.progress)), 100)
        _write(out / f"{names[file]}.{chosen.name}", look, e, {
            **described(file, look), "method": chosen.name, "params": params, "target": target,
            "title": messages.title(place, model.labels)}, start)

    return _each(work.files, one)


def _write(stem: Path, look: Look, e: Explanation, about: dict[str, Any], start: float) -> None:
    """stem.png, stem.npy, stem.json, and stem.NAME.png for each further picture."""
    pictures = {"": render.overlay(look.frame, e)}
    pictures |= {f".{name}": _uint8(p) for name, p in
                 {**({} if e.image is None else {"image": e.image}), **e.images}.items()}
    heats = {"": e.heat, **{f".{name}": heat for name, heat in e.maps.items()}}
    written = {"overlay": f"{stem.name}.png", "heat": f"{stem.name}.npy",
               **{name[1:]: f"{stem.name}{name}.png" for name in pictures if name},
               **{f"{name[1:]} heat": f"{stem.name}{name}.npy" for name in heats if name}}
    for name, picture in pictures.items():
        done, data = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
        if not done:
            raise OSError(f"a picture of shape {picture.shape} could not be written as PNG")
        Path(f"{stem}{name}.png").write_bytes(data.tobytes())
    for name, heat in heats.items():
        np.save(f"{stem}{name}.npy", heat)
    rows, columns = look.canvas.inside
    shown = e.heat[look.canvas.inside]
    report = {**about, "signed": e.signed, "scale": render.clip_at(shown), "raw_max": e.raw_max,
              "empty": e.empty, "shape": list(e.heat.shape),
              "inside": [columns.start, rows.start, columns.stop, rows.stop], "area": list(look.canvas.area),
              "numbers": e.numbers, "curves": e.curves, "note": e.note,
              "after": e.prediction.describe() if e.prediction else None, "files": written}
    report["ms"] = {**look.ms, "explain": round((time.perf_counter() - start) * 1000, 2)}
    Path(f"{stem}.json").write_text(json.dumps(messages.plain(report), indent=1, ensure_ascii=False) + "\n",
                                    encoding="utf-8")
    print(f"{stem}.png: {about['title']}. {render.legend(e)}. {e.note}".rstrip(), flush=True)


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


def read_picture(file: Path) -> np.ndarray:
    """A JPEG, PNG or WebP file as HxWx3 uint8 RGB, or a sentence that says why not."""
    try:
        if file.stat().st_size > Settings.upload_bytes:
            raise BadInput(f"a picture may have {Settings.upload_bytes / 1e6:g} MB, got "
                           f"{file.stat().st_size / 1e6:.1f} MB; save it smaller")
        return decode_upload(file.read_bytes())
    except OSError as problem:
        raise BadInput(f"cannot be read: {problem.strerror or problem}") from problem


def unlike(files: Sequence[Path]) -> dict[Path, str]:
    """A name for each file's results; files of the same name in different folders get a number."""
    taken: Counter[str] = Counter()
    names = {}
    for file in dict.fromkeys(files):
        taken[file.stem] += 1
        names[file] = file.stem if taken[file.stem] == 1 else f"{file.stem}-{taken[file.stem]}"
    return names


def progress_bar() -> Progress:
    """A bar on a terminal; elsewhere silence, since a log wants results and not bars."""
    def show(what: str, done: int, total: int) -> None:
        share = min(1.0, done / total) if total else 0.0
        unit = f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if total > 1000 else f"{share:.0%}"
        full = int(24 * share)
        sys.stderr.write(f"\r\x1b[K{what} [{'#' * full}{'.' * (24 - full)}] {unit}")
        sys.stderr.write("\r\x1b[K" if total and done >= total else "")
        sys.stderr.flush()

    return show if sys.stderr.isatty() else lambda what, done, total: None


def _info(work: Work) -> ModelInfo:
    """The model that is meant: by its name, or the embedded one of the task."""
    catalog = models.catalog()
    if work.model is None:
        return catalog[models.default(work.task or "classify")]
    if work.model not in catalog:
        raise WrongCall(f"there is no model {work.model!r}; there are {', '.join(catalog)}")
    info = catalog[work.model]
    if work.task not in (None, info.task):
        valid = [name for name, other in catalog.items() if other.task == work.task]
        raise WrongCall(f"{info.name} does not {work.task}; use {', '.join(valid)}" if valid else
                        f"there is no task {work.task!r}; there are "
                        f"{', '.join(dict.fromkeys(i.task for i in catalog.values()))}")
    return info


def _prepared(work: Work) -> tuple[Model, dict[str, Any]]:
    """The loaded model and its checked settings."""
    info = _info(work)
    settings = checked(info.settings, work.settings, info.title)
    return models.load(info.name, progress_bar()), settings


def _target(text: str | None, look: Look) -> Any:
    """The target; what no picture could have is a wrong call, what this one lacks is this file's failure."""
    try:
        return parse_target(text, look)
    except BadInput as problem:
        place = (text or "").partition("/")[0]
        if PLACES[look.model.info.task].fullmatch(place):
            parse_target(place or None, look)  # fails again where it is the picture that lacks it
        raise WrongCall(str(problem)) from problem


def _each(files: Sequence[Path], work: Callable[[Path], None]) -> int:
    """Do every file; each failure is one line on stderr."""
    failed = 0
    for file in files:
        try:
            work(file)
        except WrongCall:
            raise
        except BadInput as problem:
            failed += 1
            _complain(f"{file}: {problem}")
    return int(failed > 0)


def _complain(text: str) -> None:
    print(" ".join(text.split()), file=sys.stderr, flush=True)


def _uint8(picture: np.ndarray) -> np.ndarray:
    return np.rint(np.nan_to_num(picture).clip(0, 1) * 255).astype(np.uint8)
