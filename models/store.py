"""Verified downloads."""
from __future__ import annotations

from pathlib import Path

from models.base import Progress, silent


def fetch(name: str, progress: Progress = silent) -> Path:
    """The file of an asset, fetched and checked first if it is not here."""
    raise FileNotFoundError(name)
