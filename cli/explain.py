"""Why a model says it: for each file a picture with the map on it, the raw map, and all numbers."""
from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import explainers
from cli.common import Asked, described, loaded, prepared, read_file
from cli.lines import WrongCall, each, progress_bar
from explainers import Explanation, Look, NotInThisPicture, find_method, parse, render, resolve
from models.base import BadInput, Target, checked
from serving import messages
from serving.engine import Explain
from serving.settings import Settings


def explain(settings: Settings, asked: Asked, method: str | None, target: str | None, params: dict[str, Any],
            out: Path) -> int:
    """DIR/NAME.METHOD.png, .npy and .json for each file; the exit code."""
    work, wish = prepared(settings, asked)
    question = parse(target, wish.task)
    if method is not None:
        chosen = find_method(method, wish.task)
        checked(chosen.parameters, params, chosen.title)
    model = loaded(work, wish)
    chosen = find_method(method or explainers.preferred(model), wish.task)
    if lacking := explainers.lacks(chosen, model):
        raise WrongCall(lacking)
    params = checked(chosen.parameters, params, chosen.title)
    wish = replace(wish, method=chosen.name, params=params, target=question)
    out.mkdir(parents=True, exist_ok=True)
    names = unlike(asked.files)

    def one(file: Path) -> None:
        start = time.perf_counter()
        command = Explain(read_file(file), wish)
        look, tell = work.look(command), progress_bar()
        place = _target(look, wish.target)
        for _, e in work.explanations(command):
            tell(f"{chosen.title}, {file.name}", round(100 * min(1, e.progress)), 100)
        _write(out / f"{names[file]}.{chosen.name}", look, e, {
            **described(file, look), "method": chosen.name, "params": params, "target": target,
            "title": messages.title(place, model.labels)}, start)

    return each(asked.files, one)


def _target(look: Look, question: explainers.Question) -> Target:
    """The target; what no picture could have is a wrong call, what this one lacks is this file's failure."""
    try:
        return resolve(question, look)
    except NotInThisPicture:
        raise
    except BadInput as problem:
        raise WrongCall(str(problem)) from problem


def _write(stem: Path, look: Look, e: Explanation, about: dict[str, Any], start: float) -> None:
    """stem.png, stem.npy, stem.json, and stem.NAME.png for each further picture."""
    pictures = {"": render.overlay(look.frame, e)}
    pictures |= {f".{name}": _uint8(messages.unsqueezed(p, look)) for name, p in
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


def unlike(files: Sequence[Path]) -> dict[Path, str]:
    """A name for each file's results; files of the same name in different folders get a number."""
    taken: Counter[str] = Counter()
    names = {}
    for file in dict.fromkeys(files):
        taken[file.stem] += 1
        names[file] = file.stem if taken[file.stem] == 1 else f"{file.stem}-{taken[file.stem]}"
    return names


def _uint8(picture: np.ndarray) -> np.ndarray:
    if picture.dtype == np.uint8:
        return picture
    return np.rint(np.nan_to_num(picture).clip(0, 1) * 255).astype(np.uint8)
