"""The rows of a whole run as a file that can be compared, and as a picture of the goals."""
from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench import machine
from bench.table import Row, figure

ROOT = Path(__file__).resolve().parent.parent
FILE, PICTURE = ROOT / "bench" / "results.json", ROOT / "docs" / "bench.png"
BARS = 0.25, 4.0             # shares of a goal between which bars are drawn to scale


@dataclass
class Room:
    """What one room said, how long it took, and why it ended early, if it did."""

    name: str
    budget: float
    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0
    problem: str = ""
    busy: float = 0.0                          # the machine, with other work, before this room began


def described(rooms: list[Room], effort: str) -> dict[str, Any]:
    """All that results.json holds."""
    return {"date": time.strftime("%Y-%m-%d", time.gmtime()), "effort": effort,
            "machine": machine.described(), "seconds": round(sum(room.seconds for room in rooms)),
            "rooms": {room.name: {"seconds": round(room.seconds), "budget": room.budget, "busy": room.busy,
                                  **({"problem": room.problem} if room.problem else {}),
                                  "rows": [_row(row) for row in room.rows]} for room in rooms}}


def _row(row: Row) -> dict[str, Any]:
    """One row; a number that JSON does not know is written as words."""
    value = row.measured if isinstance(row.measured, str) else float(row.measured)
    said: dict[str, Any] = {"what": row.what, "measured": value}
    if isinstance(value, float) and not math.isfinite(value):
        said["measured"] = str(value)
    if row.interval is not None:
        said |= {"interval": list(row.interval), "pairs": getattr(row.measured, "pairs", 0)}
    if row.goal:
        said |= {"goal": row.goal, "met": row.met, "decided": not row.open}
    return said | ({"note": row.note} if row.note else {})


def write(rooms: list[Room], effort: str, file: Path = FILE, picture: Path = PICTURE) -> None:
    """Both files."""
    text = json.dumps(described(rooms, effort), indent=1, ensure_ascii=False, allow_nan=False)
    file.write_text(text + "\n", encoding="utf-8")
    drawn([row for room in rooms for row in room.rows]).savefig(picture)


def share(row: Row) -> tuple[float, float, float] | None:
    """How much of its goal a row takes up, with its interval: at most 1 is met; None if that is no ratio."""
    if row.met is None or row.limit is None or row.limit <= 0 or isinstance(row.measured, str):
        return None
    middle = float(row.measured)
    values = (middle, *(row.interval or (middle, middle)))
    if min(values) <= 0:
        return None
    found = sorted(v / row.limit if row.goal.startswith("<") else row.limit / v for v in values[1:])
    own = middle / row.limit if row.goal.startswith("<") else row.limit / middle
    return own, found[0], found[1]


def drawn(rows: list[Row]) -> Figure:
    """Every goal as a bar that must end left of the line; what is short is hatched and says so."""
    bars = [(row, found) for row in rows if (found := share(row)) is not None]
    sheet = Figure((11, 1.2 + 0.25 * max(1, len(bars))), dpi=100, layout="constrained")
    axes = sheet.subplots()
    low, high = BARS
    for y, (row, (own, first, last)) in enumerate(bars):
        end, met = min(max(own, low * 1.02), high), bool(row.met)
        axes.barh(y, end - low, left=low, height=0.62, color="#3b6ea5" if met else "#e8b35a",
                  edgecolor="#22303c", linewidth=0.6, hatch=None if met else "////")
        axes.hlines(y, max(first, low), max(low, min(last, high)), color="#22303c", linewidth=1.6)
        axes.text(high * 1.04, y, f"{'' if met else 'SHORT  '}{figure(row)}  goal {row.goal}", va="center",
                  fontsize=8, fontweight="normal" if met else "bold")
    axes.axvline(1, color="black", linewidth=1.4, linestyle="--")
    axes.set_xscale("log", base=2)
    axes.set_xlim(low, high)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xticks([0.25, 0.5, 1, 2, 4], ["a quarter", "half", "the goal", "twice", "four times"],
                    fontsize=8)
    axes.set_yticks(range(len(bars)), [row.what for row, _ in bars], fontsize=8)
    axes.set_title("Bars that end left of the line meet their goal; hatched ones fall short", fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return sheet
