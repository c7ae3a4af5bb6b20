"""What there is to be had: list the models, bring their files here."""
from __future__ import annotations

import json
from collections.abc import Iterable

import models
from cli.lines import WrongCall, complain, progress_bar
from models import store
from models.info import ModelInfo
from serving.settings import Settings


def list_models(settings: Settings, as_json: bool = False) -> int:
    """Every model with its size and licence, whether it is here, and whether it could not be compiled."""
    if as_json:
        for info in models.catalog(settings.own).values():
            print(json.dumps({"name": info.name, "task": info.task, "title": info.title,
                              "megabytes": info.megabytes, "licence": info.licence, "source": info.source,
                              "embedded": info.embedded, "present": is_present(info),
                              "runs_in": store.noted(info.name)}))
        return 0
    rows = [("name", "task", "size", "embedded", "present", "licence")]
    rows += [(info.name, info.task, f"{info.megabytes:.1f} MB", "yes" if info.embedded else "no",
              "yes" if is_present(info) else "no", info.licence + _slower(info))
             for info in models.catalog(settings.own).values()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] + [0]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _slower(info: ModelInfo) -> str:
    """What is to be said of a model that could not be compiled when it was last live."""
    ran_in = store.noted(info.name)
    return f"  (not compiled: {ran_in})" if ran_in and ran_in.startswith("torch") else ""


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
            complain(str(problem))
    return int(failed > 0)
