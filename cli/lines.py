"""What a command says: failures as lines, an exit code, a bar. Nothing heavy is imported for it."""
from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from models.info import BadInput, Progress


class WrongCall(BadInput):
    """What was asked for cannot be meant for any picture."""


def each(files: Sequence[Path], work: Callable[[Path], None]) -> int:
    """Do every file; each failure is one line on stderr. The exit code."""
    failed = 0
    for file in files:
        try:
            work(file)
        except WrongCall:
            raise
        except BadInput as problem:
            failed += 1
            complain(f"{file}: {problem}")
    return int(failed > 0)


def complain(text: str) -> None:
    """One line on stderr."""
    print(" ".join(text.split()), file=sys.stderr, flush=True)


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
