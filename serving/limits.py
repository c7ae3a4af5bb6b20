"""How much is enough: a token bucket, one for each network, and what a line of the log may be."""
from __future__ import annotations

import ipaddress
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from threading import Lock
from time import monotonic

LONGEST_LINE = 500                             # letters of one line of the log
LINES, WINDOW = 5, 10.0                        # alike lines that are logged in so many seconds
ADDRESSES = 1_000                              # networks that are counted apart at once
KINDS = 200                                    # kinds of lines that are told apart
LOGGERS = ("seewhy", "engineio.server", "socketio.server", "werkzeug")


class Bucket:
    """`rate` a second, and `most` at once for whoever was quiet before."""

    def __init__(self, rate: float, most: float, clock: Callable[[], float] = monotonic):
        self._rate, self._most, self._clock = rate, most, clock
        self._left, self._since = most, clock()

    def take(self) -> bool:
        """Whether there was one left."""
        self._fill()
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def has(self) -> bool:
        """Whether take() would get one."""
        self._fill()
        return self._left >= 1

    def borrow(self) -> float:
        """Take one in any case; the seconds until it would have been there."""
        self._fill()
        self._left -= 1
        return max(0.0, -self._left / self._rate)

    def _fill(self) -> None:
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._since) * self._rate)
        self._since = now


class Buckets:
    """A bucket for each network that somebody comes from; beyond ADDRESSES the oldest is forgotten."""

    def __init__(self, rate: float, most: float, clock: Callable[[], float] = monotonic):
        self._new = partial(Bucket, rate, most, clock)
        self._of: OrderedDict[str, Bucket] = OrderedDict()

    def of(self, address: str) -> Bucket:
        """The bucket of whoever comes from there; the caller sees to it that one thread asks at a time."""
        network = _network(address)
        if network not in self._of:
            self._of[network] = self._new()
        self._of.move_to_end(network)
        while len(self._of) > ADDRESSES:
            self._of.popitem(last=False)
        return self._of[network]

    def forget(self, address: str) -> None:
        """What was taken from there counts no more."""
        self._of.pop(_network(address), None)


def _network(address: str) -> str:
    """Who counts as one: an IPv6 address costs nothing, so its whole network does."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:100]
    return str(found) if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))


class Calm(logging.Filter):
    """Lets a few alike lines through, each short and with nothing in it that a terminal would obey.

    What comes from outside is in these lines: names, addresses, sentences of libraries about nonsense.
    """

    def __init__(self, clock: Callable[[], float] = monotonic):
        super().__init__()
        self._clock, self._lock = clock, Lock()
        self._kinds: dict[Hashable, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        of = type(record.exc_info[1]) if record.exc_info else None
        # A library's message is often made before it is logged: then where it is logged tells its kind.
        kind = (record.name, record.pathname, record.lineno, of)
        with self._lock:
            if len(self._kinds) > KINDS:
                self._kinds.clear()
            start, count = self._kinds.get(kind, (self._clock(), 0))
            left_out = 0
            if self._clock() - start > WINDOW:
                start, count, left_out = self._clock(), 0, max(0, count - LINES)
            self._kinds[kind] = start, count + 1
        if count >= LINES:
            return False
        record.msg, record.args = one_line(record.getMessage()), None
        if left_out:
            record.msg += f" ({left_out} more like it were not logged)"
        return True


def one_line(text: str, most: int = LONGEST_LINE) -> str:
    """The text on one line, what is not printable escaped, the middle left out when it is long."""
    if len(text) > most:
        text = f"{text[:most // 2]} ... {text[-most // 4:]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text.strip())


def calm_logs() -> None:
    """Put a new filter on every logger that speaks of clients, in place of the one before."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for old in [f for f in logger.filters if isinstance(f, Calm)]:
            logger.removeFilter(old)
        logger.addFilter(Calm())
