"""The protocol of PROTOCOL.md on a socket: messages are checked here, and the engine does the work."""
from __future__ import annotations

import atexit
import logging
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any

from flask import Flask
from flask_socketio import SocketIO

import explainers
import models
from explainers import METHODS, Question, parse
from models.base import BadInput, checked
from serving import messages, wire
from serving.engine import Edit, Edits, Engine, Explain, Full, See, Wish
from serving.frames import check_live
from serving.local import LocalEngine
from serving.messages import Unknown
from serving.pictures import Kept, Pictures
from serving.rooms import Rooms
from serving.session import Gone, Session
from serving.settings import Settings
from serving.work import told

log = logging.getLogger("seewhy")

LONGEST_TEXT = 500
GOODBYE = 0.5                                  # seconds that closing waits for last words to be sent
CHECKS = ("curves", "sanity")


class Credit:
    """The answer a frame is owed: it is given once, whoever comes second is not heard."""

    def __init__(self, send: Callable[[str, dict[str, Any]], None], seq: Any):
        self._send, self.seq = send, seq
        self.open, self._lock = True, Lock()

    def answer(self, event: str, fields: dict[str, Any]) -> bool:
        """Whether this was the answer."""
        with self._lock:
            mine, self.open = self.open, False
        if mine:
            self._send(event, {**({} if self.seq is None else {"seq": self.seq}), **fields})
        return mine


def attach(app: Flask, settings: Settings, engine: Engine | None = None) -> SocketIO:
    """Give an app its live channel; app.extensions["live"] is what serves it, with close()."""
    io = wire.connected(app, settings)
    live = app.extensions["live"] = Live(app, settings, io, engine or LocalEngine(settings))
    wire.listen(io, lambda client: live)
    return io


class Live:
    """All clients of one server."""

    def __init__(self, app: Flask, settings: Settings, io: SocketIO, engine: Engine):
        self.app, self.settings, self.engine, self._io = app, settings, engine, io
        self.catalog = models.catalog(settings.own)
        self.sessions: dict[str, Session] = {}
        self._emit = wire.one_at_a_time(io)
        self._meter = app.extensions["meter"]
        self.pictures = Pictures(settings.kept_mb * 1_000_000)
        self._closed, self._joining = False, Lock()
        self.rooms = Rooms(self)
        atexit.register(self.close)

    def send(self, client: str, event: str, fields: dict[str, Any]) -> None:
        """To this client alone."""
        self._meter.said(event, fields)
        self._emit(event, fields, to=client)
        self.rooms.overhear(client, event, fields)

    def close(self) -> None:
        """Say goodbye, answer what waits, stop the threads; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        for client in tuple(self.sessions):
            self.send(client, "server_closing", wire.CLOSING)
        self.rooms.close()
        self.engine.close()
        wire.drain(self._io, GOODBYE)
        atexit.unregister(self.close)

    def bring(self) -> None:
        """The model that pages begin with, before anybody asks for it."""
        self.engine.progress("", models.default(self.settings.task), lambda event, fields: None)

    def connect(self, _auth: Any = None) -> bool | None:
        client, task = wire.caller(), self.settings.task
        session = Session(client, Wish(task, models.default(task)), self.settings, self.pictures)
        with self._joining:                    # two that come at once are not both the last
            if fits := len(self.sessions) - self.rooms.viewers < self.settings.clients:
                self.sessions[client] = session
        if not fits:
            self.send(client, "error", {"code": "busy", "message": f"{len(self.sessions)} pages are open "
                      "already, more than this server takes; close one and load this page again"})
            return False
        self.engine.join(client)
        self._say_ready(session)
        if self.engine.describe(session.wish.model) is None:
            self._configure(session, session.wish)
        return None

    def disconnect(self, *_reason: Any) -> None:
        client = wire.caller()
        session = self.sessions.pop(client, None)
        if session is not None:
            self.rooms.gone(client)
            self.engine.leave(client)
            session.leave()

    def heard(self, event: str, *arguments: Any) -> None:
        """Any message of a client: what is wrong with it is answered, the connection stays."""
        session = self.sessions.get(wire.caller())
        if session is None:
            return
        message = arguments[0] if arguments and isinstance(arguments[0], dict) else {}
        if not (session.frames if event == "frame" else session.requests).take():
            return self._too_fast(session, event, message)
        try:
            handle = self.rooms.handler(session, event) or partial(self.handle, event)
            handle(session, message)
        except Exception as problem:
            id = message.get("id")
            self.send(session.client, "error", {**({"id": id} if _is_name(id) else {}), **told(problem)})

    def handle(self, event: str, session: Session, m: dict[str, Any]) -> None:
        """One message, as from a client that is in no room."""
        getattr(self, f"_on_{event}")(session, m)

    def ready(self, session: Session) -> dict[str, Any]:
        """What `ready` says to this client."""
        wish = session.wish
        return messages.ready(self.settings, self.catalog, wish, self.engine.describe(wish.model),
                              self.app.config.get("PRESETS", []))

    def wire_of(self, client: str) -> wire.Wire | None:
        """A client's connection; None in a test without a network."""
        return wire.wire_of(self._io, client)

    def hang_up(self, client: str) -> None:
        """End a client's connection."""
        wire.hang_up(self._io, client)

    def _too_fast(self, session: Session, event: str, m: dict[str, Any]) -> None:
        """More than a page can need: answered in words, until it is too much of that too."""
        rate, what, name = (self.settings.frames_a_second, "pictures", "seq") if event == "frame" else \
            (self.settings.requests_a_second, "requests", "id")
        self.send(session.client, "error", {
            **({name: m[name]} if _is_name(m.get(name)) else {}), "code": "too_fast",
            "message": f"expected at most {rate:g} {what} a second, got more; wait for the "
                       "answers before you send the next"})
        if not session.patience.take():
            log.warning("a client sent far more than it may, and was hung up on")
            self.hang_up(session.client)

    def _on_configure(self, session: Session, m: dict[str, Any]) -> None:
        """Fields that are left out stay as they were, as far as they fit the task and model."""
        old = session.newest
        task, model, settings = self._which(m, old)
        if m.get("threshold") is not None:
            settings = {**settings, "threshold": m["threshold"]}
        info = self.catalog[model]
        checked(info.settings, settings, info.title)
        method = m["method"] if "method" in m else old.method if _serves(old.method, task) else None
        params = m.get("params") or (old.params if method == old.method else {})
        if method is not None:
            found = _method(method, task)
            if not found.live:
                valid = [n for n, other in METHODS.items() if other.live and task in other.tasks]
                raise Unknown(f"{found.title} takes too long to follow a moving picture; freeze it first, or "
                              f"use {', '.join(valid)}", valid)
            method, params = found.name, checked(found.parameters, _dict(params, "params"), found.title)
        target = parse(_text(m["target"]), task) if "target" in m else \
            old.target if task == old.task else Question()
        self._configure(session, Wish(task, model, settings, method, params if method else {}, target))

    def _configure(self, session: Session, wish: Wish) -> None:
        """The wish takes effect when its model is here; one that never comes changes nothing."""
        if wish.model != session.wish.model:
            self._withdraw(session)
        version = session.want(wish)

        def hear(event: str, fields: dict[str, Any]) -> None:
            if event == "progress":
                return self.send(session.client, event, fields)
            with session.telling:
                if session.settle(version, came=event == "here"):
                    if event == "error":
                        self.send(session.client, event, fields)
                    self._say_ready(session)

        self.engine.progress(session.client, wish.model, hear)

    def _withdraw(self, session: Session) -> None:
        """Give back the credits of frames that nobody wants looked at any more; kept ones stay."""
        under_way, session.under_way = session.under_way, []
        for credit in under_way:
            self.engine.stop(session.client, _frame_id(credit.seq))
            credit.answer("dropped", {"code": "configuring",
                                      "message": "something else was asked for before this picture's turn"})

    def _say_ready(self, session: Session) -> None:
        with session.telling:
            self.send(session.client, "ready", self.ready(session))

    def _on_frame(self, session: Session, m: dict[str, Any]) -> None:
        send = partial(self.send, session.client)
        credit = Credit(send, m.get("seq") if _is_name(m.get("seq")) else None)
        try:
            if not isinstance(credit.seq, int):
                raise BadInput(f"seq must be a whole number, got {str(m.get('seq'))[:40]!r}; "
                               "number the frames")
            wish = session.newest
            task, model, settings = self._which(m, wish)
            if (task, model) != (wish.task, wish.model):
                wish = Wish(task, model, settings)
            jpeg = check_live(m.get("jpeg"), self.settings)
        except Exception as problem:
            credit.answer("error", told(problem))
            return
        kept = session.keep(credit.seq, jpeg) if m.get("keep") is True else None
        self.rooms.pictured(session.client, credit.seq, jpeg, kept is not None)
        if kept is None:
            session.under_way = [*(other for other in session.under_way if other.open), credit]
        self.engine.submit(session.client, _frame_id(credit.seq), See(jpeg, wish, kept is not None),
                           partial(self._seen, session, credit, session.version, kept, wish.target.text))

    def _seen(self, session: Session, credit: Credit, version: int, kept: Kept | None, target: str | None,
              event: str, fields: dict[str, Any]) -> None:
        """What the engine says of a frame: its answer, and then perhaps its live explanation."""
        outdated = version != session.version
        if event == "explanation":
            if not outdated:
                self.send(session.client, event, {"seq": credit.seq, "live": True, **fields})
            return
        if event == "result" and outdated:     # the explanation that comes next is not what is asked for now
            fields = {**fields, "follows": False}
        if event == "error" and kept:
            session.drop(credit.seq, kept)
        if not credit.answer(event, fields) and event == "error" and session.complains(fields["message"]):
            # The frame was answered: a live explanation that fails says so once, and takes no frame's credit.
            self.send(session.client, event, fields)

    def _on_explain(self, session: Session, m: dict[str, Any]) -> None:
        task, model, settings = self._which(m, session.newest)
        method = _method(m.get("method") or session.wish.method or "grad_cam", task)
        params = checked(method.parameters, _dict(m.get("params"), "params"), method.title)
        check = m.get("check") or None
        if check is not None and check not in CHECKS:
            raise Unknown(f"there is no check {str(check)[:40]!r}; there are {', '.join(CHECKS)}",
                          list(CHECKS))
        wish = Wish(task, model, settings, method.name, params, parse(_text(m.get("target")), task))
        picture = self._asked(session, m)
        edits = picture.edits if m.get("edited") is True else None
        if m.get("edited") is True and edits is None:
            raise Gone(f"picture {m['seq']} has no edited side; erase something first")
        self._submit(session, m, Explain(picture.jpeg, wish, edits, check))

    def _on_edit(self, session: Session, m: dict[str, Any]) -> None:
        mask = m.get("mask")
        if not isinstance(mask, bytes | bytearray):
            raise BadInput(f"mask must be the bytes of a PNG, got {type(mask).__name__}; send it binary")
        wish = Wish(*self._which(m, session.newest))
        edits = Edits(bytes(mask), _text(m.get("fill")) or "telea", _dict(m.get("params"), "params"),
                      m.get("preview") is True, _text(m.get("picture"))) if mask else None
        picture = self._asked(session, m)

        def done() -> None:
            if edits is None or not edits.preview:
                session.erase(m["seq"], picture, edits)

        self._submit(session, m, Edit(picture.jpeg, wish, edits), done)

    def _on_stop(self, session: Session, m: dict[str, Any]) -> None:
        if m.get("id") is not None and not _is_name(m["id"]):
            raise BadInput(f"id must be the one of a request, got {str(m['id'])[:40]!r}; "
                           "leave it out to stop all")
        self.rooms.asker(session).stop(session.client, m.get("id"))

    def _asked(self, session: Session, m: dict[str, Any]) -> Kept:
        """The kept picture that a request is about."""
        if not _is_name(m.get("id")):
            raise BadInput(f"id must be a number or a short text, got {str(m.get('id'))[:40]!r}; "
                           "give each request its own")
        return session.picture(m.get("seq"))

    def _submit(self, session: Session, m: dict[str, Any], command: Explain | Edit,
                done: Callable[[], None] = lambda: None) -> None:
        """Have a request done; `done` is called before its result is told."""
        name, seq = m["id"], m["seq"]

        def hear(event: str, fields: dict[str, Any]) -> None:
            if event == "result":
                done()
            # No seq with an error: a frame's credit comes back with its own answer, not with a request's.
            whose = {"id": name} if event == "error" else {"id": name, "seq": seq}
            self.send(session.client, event, {**whose, **fields})

        try:
            self.rooms.asker(session).submit(session.client, name, command, hear)
        except Full:
            hear("error", {"code": "busy", "message": "too many explanations are under way at once; "
                                                      "stop some, or wait for them"})

    def _which(self, m: dict[str, Any], now: Wish) -> tuple[str, str, dict[str, Any]]:
        """Task, model and settings a message speaks of; what it leaves out is as configured."""
        catalog = self.catalog
        task, model = m.get("task"), m.get("model")
        tasks = list(dict.fromkeys(i.task for i in catalog.values()))
        if task is not None and task not in tasks:
            raise Unknown(f"there is no task {str(task)[:40]!r}; there are {', '.join(tasks)}", tasks)
        if model is not None and (not isinstance(model, str) or model not in catalog):
            raise Unknown(f"there is no model {str(model)[:40]!r}; there are {', '.join(catalog)}",
                          list(catalog))
        if model is None:
            model = now.model if task in (None, now.task) else models.default(task)
        if task is not None and catalog[model].task != task:
            valid = [n for n, i in catalog.items() if i.task == task]
            raise Unknown(f"{catalog[model].title} does not {task}; use {', '.join(valid)}", valid)
        settings = now.settings if m.get("settings") is None and model == now.model else \
            _dict(m.get("settings"), "settings")
        return catalog[model].task, model, settings


def _frame_id(seq: Any) -> tuple[str, Any]:
    """A frame's name beside those of requests."""
    return "frame", seq


def _is_name(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, str) and 0 < len(value) <= 100)


def _text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise BadInput(f"expected a text of at most {LONGEST_TEXT} letters, got {str(value)[:40]!r}")
    return value


def _dict(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"{name} must be names with values, got {str(value)[:40]!r}")
    return value


def _serves(method: str | None, task: str) -> bool:
    return method in METHODS and task in METHODS[method].tasks


def _method(name: Any, task: str) -> explainers.Method:
    if not isinstance(name, str) or name.replace("-", "_") not in METHODS:
        valid = [n for n, m in METHODS.items() if task in m.tasks]
        raise Unknown(f"there is no method {str(name)[:40]!r}; for {task} there are {', '.join(valid)}",
                      valid)
    return explainers.find_method(name, task)
