"""The work itself, without a word about sockets: pictures and wishes go in, messages come out of `send`.

Another engine (one on Ray Serve, say) is a class with the public methods of LocalEngine.
"""
from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Lock, Thread
from time import monotonic, perf_counter
from typing import Any

import numpy as np

import explainers
import models
from explainers import Explanation, Look, faith, parse_target
from models.base import BadInput, Model, Target
from serving import edits, messages
from serving.frames import encode_jpeg
from serving.scheduler import Frame, Full, Request, Scheduler, Steps
from serving.session import Gone, Picture, Session, Wish

log = logging.getLogger("seewhy")

PROGRESS_EVERY = 0.1                           # seconds between two messages about one download
GREY = np.full((240, 320, 3), 128, np.uint8)   # what a new model looks at first, before anyone waits for it

Send = Callable[[str, str, dict[str, Any]], None]
Message = tuple[str, dict[str, Any]]


class Credit:
    """The answer a frame is owed: it is given once, whoever comes second is not heard."""

    def __init__(self, send: Send, client: str, seq: Any):
        self._send, self._client, self.seq = send, client, seq
        self._open, self._lock = True, Lock()

    def answer(self, event: str, **fields: Any) -> None:
        with self._lock:
            mine, self._open = self._open, False
        if mine:
            self._send(self._client, event, {**({} if self.seq is None else {"seq": self.seq}), **fields})

    def dropped(self, code: str, message: str) -> None:
        self.answer("dropped", code=code, message=message)

    def failed(self, problem: BaseException) -> None:
        self.answer("error", **told(problem))


def told(problem: BaseException) -> dict[str, Any]:
    """The failure in words; what nobody foresaw goes to the log with its stack, never with a picture."""
    said = messages.failure(problem)
    if said["code"] == "internal":
        log.error("unforeseen failure", exc_info=problem)
    return said


@dataclass
class Shot:
    """One decoded frame on its way to a model."""

    frame: np.ndarray
    wish: Wish
    credit: Credit
    picture: Picture | None = None             # when it is to be kept
    decode: float = 0.0                        # milliseconds
    arrived: float = field(default_factory=perf_counter)


@dataclass
class Ask:
    """A request about a kept picture."""

    id: Any
    seq: int
    wish: Wish                                 # method, params and target are what is asked for
    edited: bool = False
    check: str | None = None


class LocalEngine:
    """All models in this process; one thread runs them, another loads them, a third fills holes."""

    def __init__(self, send: Send):
        self._send = send
        self._scheduler = Scheduler()
        self._models: dict[str, Future[Model]] = {}
        self._listeners: dict[str, set[str]] = {}
        self._lock, self._one_load = Lock(), Lock()
        self._brush = ThreadPoolExecutor(1, "brush")

    def model(self, name: str) -> Model | None:
        """The model if it is here."""
        future = self._models.get(name)
        return future.result() if future and future.done() and not future.exception() else None

    def ask(self, name: str, client: str, again: bool = False) -> Future[Model]:
        """The model, now or later; whoever asks hears of the progress. `again` retries what failed."""
        with self._lock:
            future = self._models.get(name)
            load = future is None or (again and future.done() and future.exception() is not None)
            if future is None or load:
                future = self._models[name] = Future()
            if not future.done():
                self._listeners.setdefault(name, set()).add(client)
            if load:
                Thread(target=self._load, args=(name, future), name=f"loading {name}", daemon=True).start()
        return future

    def join(self, session: Session) -> None:
        self._scheduler.join(session.client)

    def leave(self, session: Session) -> None:
        self._scheduler.leave(session.client)
        session.forget()

    def stop(self, session: Session, id: Any = None) -> None:
        self._scheduler.stop(session.client, id)

    def waiting(self) -> dict[str, int]:
        return self._scheduler.waiting()

    def close(self) -> None:
        self._scheduler.close()
        self._brush.shutdown(wait=False, cancel_futures=True)

    def frame(self, session: Session, shot: Shot) -> None:
        """Look at a frame as soon as it is its turn; the credit is answered in every case."""
        future, credit = self.ask(shot.wish.model, session.client), shot.credit
        self._scheduler.frame(session.client, Frame(
            run=partial(self._look, session, shot, future),
            replaced=partial(credit.dropped, "newer", "a newer picture came before this one's turn"),
            failed=credit.failed,
            withdrawn=None if shot.picture else partial(
                credit.dropped, "configuring", "something else was asked for before this picture's turn"),
            closing=partial(credit.dropped, "closing", "the server is closing; connect again in a moment"),
            waiting=None if future.done() else future,
            unhurried=shot.wish.task == "caption" and shot.picture is None))

    def withdraw(self, session: Session) -> None:
        """Give back the credit of a frame that nobody wants looked at any more; kept ones stay."""
        self._scheduler.withdraw(session.client)

    def explain(self, session: Session, ask: Ask) -> None:
        """Better and better explanations, or a check of one, step by step until stopped."""
        self._request(session, ask, self._explain(session, ask))

    def edit(self, session: Session, ask: Ask, edit: dict[str, Any]) -> None:
        """Fill what was erased, look again, keep the result beside the original."""
        self._request(session, ask, self._edit(session, ask, edit))

    def _request(self, session: Session, ask: Ask, steps: Steps) -> None:
        def deliver(message: Message) -> None:
            event, fields = message
            self._send(session.client, event, {"id": ask.id, "seq": ask.seq, **fields})

        def failed(problem: BaseException) -> None:
            # No seq: a frame's credit comes back with its own answer, not with a request's.
            self._send(session.client, "error", {"id": ask.id, **told(problem)})

        try:
            self._scheduler.request(session.client, Request(ask.id, steps, deliver, failed))
        except Full:
            self._send(session.client, "error", {
                "id": ask.id, "code": "busy",
                "message": "too many explanations are under way at once; stop some, or wait for them"})

    def _look(self, session: Session, shot: Shot, future: Future[Model]) -> Callable[[], None] | None:
        start = perf_counter()
        look = Look(future.result(), shot.frame, shot.wish.settings)
        extra = {}
        if shot.picture:
            shot.picture.remember(look)
            extra["picture"] = shot.picture.fingerprint
        wish = shot.wish
        target = self._live_target(session, wish, look) if wish.method and wish is session.wish else None
        shot.credit.answer("result", **messages.seen(look), **extra, follows=target is not None, ms={
            "decode": shot.decode, "wait": round((start - shot.arrived) * 1000, 2), **look.ms})
        return partial(self._live, session, wish, look, target, shot.credit.seq) if target else None

    def _live_target(self, session: Session, wish: Wish, look: Look) -> Target | None:
        """What a live explanation is about; a box or word that this frame does not have is no error."""
        try:
            return parse_target(wish.target, look)
        except BadInput as problem:
            if not _came_and_went(wish.target, look):
                self._complain(session, problem)
            return None

    def _live(self, session: Session, wish: Wish, look: Look, target: Target, seq: int) -> None:
        """The explanation that follows a result."""
        start = perf_counter()
        try:
            *_, e = explainers.steps(look, wish.method or "", target, wish.params)
        except Exception as problem:           # the frame was answered; this must not answer it again
            self._complain(session, problem)
            return
        self._send(session.client, "explanation", {
            "seq": seq, "live": True, **messages.explained(e, look, live=True),
            "target": wish.target, "ms": _milliseconds(start)})

    def _complain(self, session: Session, problem: Exception) -> None:
        """A live explanation that fails says so once, not with every frame, and takes no frame's credit."""
        if str(problem) not in session.complained:
            session.complained.add(str(problem))
            self._send(session.client, "error", told(problem))

    def _explain(self, session: Session, ask: Ask) -> Steps:
        picture, wish = session.picture(ask.seq), ask.wish
        if ask.edited:
            if picture.edited is None:
                raise Gone(f"picture {ask.seq} has no edited side; erase something first")
            picture = picture.edited
        model = yield from self._arrived(session, wish.model)
        start = perf_counter()
        look = picture.look(model, wish.settings)
        target = parse_target(wish.target, look)
        key = json.dumps([wish.describe(), repr(target)], sort_keys=True)
        method = wish.method or ""
        results: Iterator[Explanation]
        if ask.check == "sanity":
            results = faith.sanity(look, method, target, wish.params)
        elif ask.check == "curves":
            e = picture.explained(key)
            for better in explainers.steps(look, method, target, wish.params) if e is None else ():
                e = better
                yield None
            assert e is not None
            picture.keep_explanation(key, e)
            results = faith.curve_steps(look, e, target)
        else:
            results = explainers.steps(look, method, target, wish.params)
        for e in results:
            e.method, e.target, e.canvas = e.method or method, e.target or target, e.canvas or look.canvas
            if e.done and not ask.check:
                picture.keep_explanation(key, e)
            extra = {"edited": True} if ask.edited else {}
            yield "explanation", {**messages.explained(e, look), **extra, "target": wish.target,
                                  **({"check": ask.check} if ask.check else {}),
                                  "ms": _milliseconds(start)}

    def _edit(self, session: Session, ask: Ask, edit: dict[str, Any]) -> Steps:
        original = session.picture(ask.seq)
        if not edit["mask"]:
            original.edited = None
            model = yield from self._arrived(session, ask.wish.model)
            look = original.look(model, ask.wish.settings)
            yield "result", {**messages.seen(look), "edited": False, "ms": look.ms}
            return
        start = perf_counter()
        filling = self._brush.submit(edits.apply, original.frame, edit["mask"], edit["fill"],
                                     edit["params"], edit["preview"], edit["picture"])
        try:
            yield filling
        finally:
            filling.cancel()
        filled = _milliseconds(start)
        edited = Picture(filling.result())
        model = yield from self._arrived(session, ask.wish.model)
        before = original.look(model, ask.wish.settings)
        look = edited.look(model, ask.wish.settings)
        if not edit["preview"]:
            original.edited = edited
        yield "result", {**messages.seen(look), "edited": True, "preview": edit["preview"],
                         "image": encode_jpeg(edited.frame), "before": before.prediction.describe(),
                         **edits.compared(before.prediction, look.prediction),
                         "ms": {"fill": filled, **look.ms}}

    def _arrived(self, session: Session, name: str) -> Generator[Any, None, Model]:
        """A model, waited for if it is still on its way."""
        future = self.ask(name, session.client, again=True)
        if not future.done():
            yield future
        return future.result()

    def _load(self, name: str, future: Future[Model]) -> None:
        """In its own thread: fetch, load and try out one model, one at a time."""
        tell = partial(self._tell, name)
        last = 0.0

        def progress(what: str, done: int, total: int) -> None:
            nonlocal last
            if done >= total or monotonic() - last > PROGRESS_EVERY:
                last = monotonic()
                tell("fetch" if total else "load", done, total, what)

        with self._one_load:
            try:
                title = models.catalog()[name].title
                tell("load", 0, 1, f"Loading {title}")
                model = models.load(name, progress)
                _try_out(model)
                tell("load", 1, 1, f"{title} is here")
            except BaseException as problem:
                future.set_exception(problem)
            else:
                future.set_result(model)
            finally:
                with self._lock:
                    self._listeners.pop(name, None)

    def _tell(self, name: str, what: str, done: int, total: int, text: str) -> None:
        if what == "fetch":
            text = f"Fetching {text}: {done / 1e6:.1f} of {total / 1e6:.1f} MB"
        with self._lock:
            listeners = tuple(self._listeners.get(name, ()))
        for client in listeners:
            self._send(client, "progress", {"what": what, "name": name, "done": done, "total": total,
                                            "text": text})


def _milliseconds(start: float) -> float:
    return round((perf_counter() - start) * 1000, 2)


def _try_out(model: Model) -> None:
    """One look and one map, so that what is slow only the first time is over before anyone waits."""
    look = Look(model, GREY)
    try:
        for _ in explainers.steps(look, "grad_cam", parse_target(None, look), {}):
            pass
    except BadInput:
        pass                                   # a detector sees no box in grey
    except Exception:
        log.exception("the first map of %s failed", model.info.name)


def _came_and_went(text: str | None, look: Look) -> bool:
    """Whether a live target means a box or word that this frame happens not to have."""
    key, _, value = (text or "").partition("/")[0].partition(":")
    seen = look.prediction
    if seen.task == "classify":
        return False
    there = seen.words if seen.task == "caption" else seen.candidates if key == "candidate" else seen.boxes
    numbered = key in ("box", "candidate", "word") and value.isdigit()
    return not there or (numbered and int(value) >= len(there))
