"""Photographs that installed packages ship, for whoever has no camera at hand; read where they lie."""
from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

# name: title, package, file in it
PRESETS = {
    "bus": ("Bus", "ultralytics", "assets/bus.jpg"),
    "zidane": ("Zidane", "ultralytics", "assets/zidane.jpg"),
    "cat": ("Cat", "skimage", "data/chelsea.png"),
    "coffee": ("Coffee", "skimage", "data/coffee.png"),
    "astronaut": ("Astronaut", "skimage", "data/astronaut.png"),
}


@cache
def path(name: str) -> Path | None:
    """The file of a preset, or None; the package is found but not imported."""
    _, package, file = PRESETS.get(name, ("", "", ""))
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or spec.origin is None:
        return None
    found = Path(spec.origin).parent / file
    return found if found.is_file() else None


def listing() -> list[dict[str, str]]:
    """Those that are here, as the page is told of them."""
    return [{"name": name, "title": title, "url": f"/presets/{name}"}
            for name, (title, _, _) in PRESETS.items() if path(name)]
