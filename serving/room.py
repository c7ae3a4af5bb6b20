"""What is known of one room: who is in it, what it shows, its hands, its poll. Nothing of it is stored."""
from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from serving import codes
from serving.engine import Edits, Wish
from serving.fanout import Stage
from serving.pictures import Kept
from serving.questions import Shared

PICTURES, PICTURE_BYTES = 64, 16_000_000       # of the last seconds: a viewer may ask about what it saw
HANDS = 100                                    # that may be up at once; a newer one takes the oldest's place
OFFERS = 8                                     # cameras that are offered at once
ASIDES = 64                                    # requests of the presenter that are not for the stage
LENT_SEQ = 2**40                               # numbers of lent pictures begin here, far from the others
HOTTEST = 0.1


@dataclass
class Hand:
    """What a viewer found: a question, and the picture that it is about."""

    number: int
    seq: int
    picture: Kept
    edits: Edits | None
    wish: Wish
    note: str

    def describe(self) -> dict[str, Any]:
        return {"hand": self.number, "seq": self.seq, "task": self.wish.task, "model": self.wish.model,
                "method": self.wish.method, "params": self.wish.params,
                "target": self.wish.target.text or None, "note": self.note, "edited": self.edits is not None}


@dataclass
class Poll:
    """Where on a picture do you think it looks? A tap for each viewer, by its token."""

    seq: int
    taps: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)
    shown: bool = False
    explanation: dict[str, Any] | None = None  # the presenter's of this picture, held back until it is shown
    size: tuple[int, int] | None = None        # of the picture, width and height

    def describe(self) -> dict[str, Any]:
        """How many taps there are; once they are shown, where, and how many of them hit."""
        said: dict[str, Any] = {"seq": self.seq, "count": len(self.taps)}
        if self.shown:
            points = list(self.taps.values())
            hits = hits_of(points, self.explanation, self.size)
            said |= {"points": [list(point) for point in points], "hits": hits,
                     "share": hits / len(points) if hits is not None and points else None}
        return said


@dataclass(eq=False)
class Room:
    """One presenter, and whoever watches. `presenter` is None while it is away."""

    link: str
    presenter: str | None
    questions: Shared
    code: str
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    gone: float | None = None                  # since when the presenter is away
    stage: Stage = field(default_factory=Stage)
    task: str | None = None                    # of the presenter's tab, as far as the server knows
    viewers: dict[str, str] = field(default_factory=dict)      # their tokens
    pictures: OrderedDict[int, Kept] = field(default_factory=OrderedDict)
    asides: OrderedDict[Any, None] = field(default_factory=OrderedDict)
    hands: OrderedDict[str, Hand] = field(default_factory=OrderedDict)
    poll: Poll | None = None
    offers: dict[str, int] = field(default_factory=dict)       # viewers' cameras, by number
    lender: str | None = None
    paused: bool = False                       # the presenter shows a still: a lent camera waits
    lent: OrderedDict[int, int] = field(default_factory=OrderedDict)       # the lender's numbers, by ours
    numbers: count[int] = field(default_factory=lambda: count(1))
    frames: count[int] = field(default_factory=lambda: count(LENT_SEQ))

    def describe(self) -> dict[str, Any]:
        """What everybody in it may know."""
        return {"code": self.code, "link": self.link, "viewers": len(self.viewers),
                "here": self.presenter is not None}

    def listing(self) -> dict[str, Any]:
        """The hands that are up, without whose they are."""
        return {"count": len(self.hands), "list": [hand.describe() for hand in self.hands.values()]}

    def lending(self) -> dict[str, Any]:
        """Whether a camera is borrowed, and which others are offered."""
        return {"on": self.lender is not None, "offers": list(self.offers.values())}

    def remember(self, seq: int, jpeg: bytes) -> None:
        """A picture of the presenter came; the oldest beyond the bounds are forgotten."""
        self.pictures.pop(seq, None)
        self.pictures[seq] = Kept(jpeg)
        while len(self.pictures) > PICTURES or sum(p.bytes for p in self.pictures.values()) > PICTURE_BYTES:
            self.pictures.popitem(last=False)

    def aside(self, id: Any) -> None:
        """What the presenter asks under this id is for its own page alone."""
        self.asides[id] = None
        while len(self.asides) > ASIDES:
            self.asides.popitem(last=False)

    def begin_anew(self) -> None:
        """The presenter's page was loaded again: its pictures are numbered from the start."""
        self.pictures.clear()
        self.asides.clear()
        self.poll = None
        self.lent.clear()
        self.stage.put(poll=("poll", {"seq": None}), taps=None)


def unused(taken: Iterable[str]) -> str:
    """A code that no room has."""
    have = set(taken)
    while (code := codes.new()) in have:
        pass
    return code


def hits_of(points: list[tuple[float, float]], e: dict[str, Any] | None,
            size: tuple[int, int] | None) -> int | None:
    """How many points (shares of the picture) lie within the hottest tenth of its map; None without a map."""
    if e is None or size is None or e.get("empty") or not e.get("heat"):
        return None
    height, width = e["shape"]
    values = np.frombuffer(e["heat"], np.uint8).reshape(height, width).astype(int)
    values -= 128 if e["signed"] else 0
    kept = max(1, round(HOTTEST * values.size))
    # Where the map is mostly nothing, nothing is not hot.
    limit = max(1, int(np.partition(values, -kept, axis=None)[-kept]))
    left, top, right, bottom = e["area"]
    hits = 0
    for x, y in points:
        column = int((x * size[0] - left) / (right - left) * width)
        row = int((y * size[1] - top) / (bottom - top) * height)
        column, row = min(column, width - 1) if x == 1 else column, min(row, height - 1) if y == 1 else row
        hits += 0 <= column < width and 0 <= row < height and bool(values[row, column] >= limit)
    return hits
