"""What the figures were measured on: enough to compare two machines, nothing that says whose they are."""
from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "onnxruntime", "numpy", "opencv-python")


def described() -> dict[str, Any]:
    """Processor, cores, memory, system and versions."""
    return {"processor": processor(), "cores": cores(), "memory GB": memory(),
            "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(),
            **{name: found for name in LIBRARIES if (found := _version(name))}, "accelerator": accelerator()}


def sentence(machine: dict[str, Any]) -> str:
    """The description in one line."""
    return (f"{machine['processor']}, {machine['cores']} cores, {machine['memory GB']} GB, "
            f"{machine['system']}, Python {machine['python']}, torch {machine.get('torch')}, "
            f"onnxruntime {machine.get('onnxruntime')}, {machine['accelerator'] or 'no GPU'}")


def processor() -> str:
    """The processor's own name for itself."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = (text.partition(":")[2].strip() for text in lines if text.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def cores() -> int:
    """How many this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


def memory() -> int:
    """Gigabytes."""
    import psutil

    return round(psutil.virtual_memory().total / 1e9)


def busy() -> float:
    """The share of all cores that other work takes at the moment: ratios suffer from it, too."""
    import psutil

    return round(psutil.cpu_percent(0.5) / 100, 2)


def accelerator() -> str:
    """The GPU's name, or nothing."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
