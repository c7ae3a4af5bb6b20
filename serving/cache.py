"""What was worked out, by the content it was worked out from, within a bound of bytes."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

import numpy as np
from torch import Tensor

from explainers import Explanation, Look


class Cache:
    """The least recently used goes first; losing an entry costs time, never a result."""

    def __init__(self, most: int):
        self._most, self._lock = most, Lock()
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self.hits = self.misses = 0

    def get(self, key: Hashable) -> Any:
        """What was put there, or None."""
        with self._lock:
            if key not in self._entries:
                self.misses += 1
                return None
            self.hits += 1
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: Hashable, value: Any) -> None:
        """Keep it, unless it alone is more than fits."""
        size = bytes_of(value)
        with self._lock:
            self._drop(key)
            if size > self._most:
                return
            self._entries[key] = value, size
            self._bytes += size
            while self._bytes > self._most:
                self._drop(next(iter(self._entries)))

    def forget(self, is_meant: Callable[[Any], bool]) -> None:
        """Drop every value of which that is true."""
        with self._lock:
            for key in [k for k, (value, _) in self._entries.items() if is_meant(value)]:
                self._drop(key)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        return self._bytes

    def _drop(self, key: Hashable) -> None:
        _, size = self._entries.pop(key, (None, 0))
        self._bytes -= size


def bytes_of(value: Any) -> int:
    """The memory that the numbers of a look, an explanation or a picture take."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, dict):
        return sum(bytes_of(v) for v in value.values())
    if isinstance(value, tuple):
        return sum(map(bytes_of, value))
    if isinstance(value, Look):
        seen = value.prediction.probabilities
        return (value.frame.nbytes + bytes_of(value.x) + sum(map(bytes_of, value.features.tensors))
                + (0 if seen is None else seen.nbytes))
    if isinstance(value, Explanation):
        canvas = 0 if value.canvas is None else bytes_of(value.canvas.x)
        return canvas + value.heat.nbytes + sum(map(bytes_of, (value.maps, value.images, value.image)))
    return 0
