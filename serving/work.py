"""What is to be done with a picture: a command in, messages out. It knows no client, no socket and no queue.

The same command gives the same messages in every process; what is remembered here only saves time.
"""
from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Hashable, Iterator
from functools import cache
from time import perf_counter
from typing import Any

import numpy as np

import explainers
from explainers import Explanation, Look, NotInThisPicture, faith, resolve
from models.base import BadInput, Model, Target, checked
from serving import edits, frames, messages
from serving.cache import Cache
from serving.engine import Command, Edit, Edits, Explain, Message, See, Wish
from serving.frames import encode_jpeg
from serving.settings import Settings
from serving.shelf import Shelf

log = logging.getLogger("seewhy")


def run(command: Command) -> Iterator[Message]:
    """A command's messages, worked out in this process with the usual settings."""
    return here().run(command)


@cache
def here() -> Work:
    """The one that this process has when nobody gave it settings of its own."""
    return Work(Settings())


class Work:
    """The models of a process, and one memory of looks, finished explanations and filled pictures."""

    def __init__(self, settings: Settings):
        self.remembered = Cache(settings.looks_mb * 1_000_000)
        self.shelf = Shelf(settings.own, settings.models_mb * 1_000_000, settings.compiled, self._forget)

    def run(self, command: Command) -> Iterator[Message]:
        """Plain numbers, words and bytes; a failure is the last message, `error`, and never an exception."""
        try:
            for event, fields in self._messages(command):
                yield event, messages.plain(fields)
        except Exception as problem:
            yield "error", told(problem)

    def _messages(self, command: Command) -> Iterator[Message]:
        if isinstance(command, See):
            return self._see(command)
        return self._explain(command) if isinstance(command, Explain) else self._edit(command)

    def look(self, command: Command) -> Look:
        """The look that a command is about."""
        with self.shelf.using(command.wish.model) as model:
            if isinstance(command, See) and not command.keep:
                return Look(model, frames.decode(command.picture), command.wish.settings)
            side = None if isinstance(command, See) else command.edits
            return self._looked(model, command.picture, side, command.wish)

    def _see(self, command: See) -> Iterator[Message]:
        start, wish = perf_counter(), command.wish
        frame = frames.decode(command.picture)
        decode = _milliseconds(start)
        with self.shelf.using(wish.model) as model:
            look = self._looked(model, command.picture, None, wish, frame) if command.keep else \
                Look(model, frame, wish.settings)
            target, complaint = self._live_target(look, wish) if wish.method else (None, None)
            extra = {"picture": edits.fingerprint(frame)} if command.keep else {}
            yield "result", {**messages.seen(look), **extra, "follows": target is not None,
                             "ms": {"decode": decode, **look.ms}}
            if complaint:
                yield "error", told(complaint)
            if target:
                start = perf_counter()
                *_, e = explainers.steps(look, wish.method or "", target, wish.params)
                yield "explanation", {**messages.explained(e, look, live=True),
                                      "target": wish.target.text or None, "ms": _milliseconds(start)}

    @staticmethod
    def _live_target(look: Look, wish: Wish) -> tuple[Target | None, BadInput | None]:
        """What a live explanation is about; a box or word that this frame does not have is no error."""
        try:
            return resolve(wish.target, look), None
        except NotInThisPicture:
            return None, None
        except BadInput as problem:
            return None, problem

    def explanations(self, command: Explain) -> Iterator[tuple[Look, Explanation]]:
        """Better and better explanations, or a check of one; what was finished before comes at once."""
        wish, method = command.wish, command.wish.method or ""
        with self.shelf.using(wish.model) as model:
            look = self._looked(model, command.picture, command.edits, wish)
            target = resolve(wish.target, look)
            key = ("explained", *_key(model, command.picture, command.edits, look.settings), method,
                   _json(wish.params), repr(target))
            if command.check == "sanity":
                results = faith.sanity(look, method, target, wish.params)
            elif command.check == "curves":
                results = self._curves(look, key, target, wish)
            else:
                results = self._steps(look, key, target, wish)
            for e in results:
                e.method, e.target, e.canvas = e.method or method, e.target or target, e.canvas or look.canvas
                yield look, e

    def _steps(self, look: Look, key: Hashable, target: Target, wish: Wish) -> Iterator[Explanation]:
        known = self.remembered.get(key)
        if known is not None:
            yield known
            return
        for e in explainers.steps(look, wish.method or "", target, wish.params):
            if e.done:
                self.remembered.put(key, e)
            yield e

    def _curves(self, look: Look, key: Hashable, target: Target, wish: Wish) -> Iterator[Explanation]:
        """The curves of an explanation, which is worked out first where it is not known."""
        for e in self._steps(look, key, target, wish):
            if not e.done:
                yield e
        yield from faith.curve_steps(look, e, target)

    def _explain(self, command: Explain) -> Iterator[Message]:
        start = perf_counter()
        extra: dict[str, Any] = {"edited": True} if command.edits else {}
        if command.check:
            extra["check"] = command.check
        for look, e in self.explanations(command):
            yield "explanation", {**messages.explained(e, look), **extra,
                                  "target": command.wish.target.text or None, "ms": _milliseconds(start)}

    def _edit(self, command: Edit) -> Iterator[Message]:
        wish = command.wish
        with self.shelf.using(wish.model) as model:
            if command.edits is None:
                look = self._looked(model, command.picture, None, wish)
                yield "result", {**messages.seen(look), "edited": False, "ms": look.ms}
                return
            _, filling = self.filled(command.picture, command.edits)
            before = self._looked(model, command.picture, None, wish)
            look = self._looked(model, command.picture, command.edits, wish)
            yield "result", {**messages.seen(look), "edited": True, "preview": command.edits.preview,
                             "image": encode_jpeg(look.frame), "before": before.prediction.describe(),
                             **edits.compared(before.prediction, look.prediction),
                             "ms": {"fill": filling, **look.ms}}

    def filled(self, picture: bytes, erased: Edits) -> tuple[np.ndarray, float]:
        """The picture with its holes filled, and the milliseconds that took.

        Whoever has a thread to spare asks before the command runs.
        """
        key = ("filled", _side(picture, erased))
        found = self.remembered.get(key)
        if found is None:
            *_, found = self.filling(picture, erased)
        return found

    def filling(self, picture: bytes, erased: Edits) -> Iterator[Any]:
        """The same in pieces, so that it can be stopped: None after each, and what filled() gives at last."""
        start = perf_counter()
        for done in edits.applying(frames.decode(picture), erased.mask, erased.fill, erased.params,
                                   erased.preview, erased.drawn_on):
            if done is None:
                yield None
        assert done is not None
        found = done, _milliseconds(start)
        self.remembered.put(("filled", _side(picture, erased)), found)
        yield found

    def is_filled(self, picture: bytes, erased: Edits) -> bool:
        """Whether filled() would answer at once."""
        return self.remembered.get(("filled", _side(picture, erased))) is not None

    def _looked(self, model: Model, picture: bytes, erased: Edits | None, wish: Wish,
                frame: np.ndarray | None = None) -> Look:
        """The look a model takes at one side of a picture, remembered."""
        settings = checked(model.info.settings, wish.settings, model.info.title)
        key = ("look", *_key(model, picture, erased, settings))
        look = self.remembered.get(key)
        if look is None or look.model is not model:
            if erased:
                frame, _ = self.filled(picture, erased)
            look = Look(model, frames.decode(picture) if frame is None else frame, settings)
            self.remembered.put(key, look)
        return look

    def _forget(self, model: Model) -> None:
        """A model that is put away takes its looks along, which would keep it alive."""
        self.remembered.forget(lambda value: isinstance(value, Look) and value.model is model)


def told(problem: BaseException) -> dict[str, Any]:
    """The failure in words; what nobody foresaw goes to the log with its stack, never with a picture."""
    said = messages.failure(problem)
    if said["code"] == "internal":
        log.error("unforeseen failure", exc_info=problem)
    return said


def _side(picture: bytes, erased: Edits | None) -> str:
    """The name of a picture's content, or of its edited side's."""
    name = hashlib.sha256(picture)
    if erased:
        name.update(hashlib.sha256(erased.mask).digest())
        name.update(_json([erased.fill, erased.params, erased.preview, erased.drawn_on]).encode())
    return name.hexdigest()


def _key(model: Model, picture: bytes, erased: Edits | None, settings: dict[str, Any]) -> tuple[str, ...]:
    return _side(picture, erased), model.info.name, _json(settings)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _milliseconds(start: float) -> float:
    return round((perf_counter() - start) * 1000, 2)
