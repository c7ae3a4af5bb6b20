"""The protocol of PROTOCOL.md on a socket: messages are checked here, and the engine does the work."""
from __future__ import annotations

import atexit
import logging
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from threading import RLock
from typing import Any

from engineio.async_drivers.threading import SimpleWebSocketWSGI
from flask import Flask, request
from flask_socketio import SocketIO

import explainers
import models
from explainers import METHODS
from models.base import BadInput, Model, checked
from serving import messages
from serving.engine import Ask, Credit, LocalEngine, Shot, told
from serving.frames import decode_live
from serving.messages import Unknown
from serving.session import Session, Settings, Wish

log = logging.getLogger("seewhy")

LONGEST_TEXT = 500
GOODBYE = 0.5                                  # seconds that closing waits for last words to be sent
BEYOND_LIMITS = 1_000_000                      # what is only a little too large gets an answer in words


class Wire(SimpleWebSocketWSGI):
    """A WebSocket for pictures: large reads, no waiting for small packets, nothing compressed twice."""

    def __init__(self, handler: Any, server: Any):
        super().__init__(handler, server, receive_bytes=1 << 18,
                         max_message_size=server.max_http_buffer_size)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)
        environ["werkzeug.socket"].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return super().__call__(environ, start_response)
        except ConnectionError:
            # The socket was closed. Werkzeug would read on, take what is left on the wire (half a picture)
            # for a request, and log it as a bad one; this ends the thread of the connection instead.
            raise SystemExit from None


def attach(app: Flask, settings: Settings) -> SocketIO:
    """Give an app its live channel; app.extensions["live"] is what serves it, with close()."""
    io = SocketIO(app, async_mode="threading", async_handlers=False, transports=["websocket"],
                  allow_upgrades=False, always_connect=True, manage_session=False,
                  cors_allowed_origins=settings.allowed_origins,
                  max_http_buffer_size=settings.upload_bytes + BEYOND_LIMITS)
    io.server.eio._async = {**io.server.eio._async, "websocket": Wire}
    live = app.extensions["live"] = Live(app, settings, io)
    for event in ("configure", "frame", "explain", "edit", "stop"):
        io.on_event(event, partial(live.heard, event))
    io.on_event("connect", live.connect)
    io.on_event("disconnect", live.disconnect)
    atexit.register(live.close)
    return io


class Live:
    """All clients of one server."""

    def __init__(self, app: Flask, settings: Settings, io: SocketIO):
        self.app, self.settings, self._io = app, settings, io
        self.sessions: dict[str, Session] = {}
        self.engine = LocalEngine(self.send)
        self._closed = False
        # A binary message is several packets; no other, an acknowledgement say, may come in between.
        self._speaking = RLock()
        io.server._send_packet = self._alone(io.server._send_packet)

    def send(self, client: str, event: str, fields: dict[str, Any]) -> None:
        """To this client alone."""
        self._alone(self._io.emit)(event, messages.plain(fields), to=client)

    def _alone(self, speak: Callable[..., Any]) -> Callable[..., Any]:
        def spoken(*args: Any, **kwargs: Any) -> Any:
            with self._speaking:
                return speak(*args, **kwargs)

        return spoken

    def close(self) -> None:
        """Say goodbye, answer what waits, stop the threads; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        for client in tuple(self.sessions):
            self.send(client, "server_closing", {"message": "the server is closing; this page connects "
                                                            "again by itself when it is back"})
        self.engine.close()
        lines = tuple(self._io.server.eio.sockets.values())
        end = time.monotonic() + GOODBYE
        while any(not line.queue.empty() for line in lines) and time.monotonic() < end:
            time.sleep(0.01)                   # the writers of the sockets are threads of their own
        if lines:
            time.sleep(0.05)
        atexit.unregister(self.close)

    def connect(self, _auth: Any = None) -> bool | None:
        client: str = request.sid  # type: ignore[attr-defined]
        if len(self.sessions) >= self.settings.clients:
            self.send(client, "error", {"code": "busy", "message": f"{len(self.sessions)} pages are open "
                      "already, more than this server takes; close one and load this page again"})
            return False
        task = self.settings.task
        session = Session(client, Wish(task, models.default(task)), self.settings.kept)
        self.sessions[client] = session
        self.engine.join(session)
        self._say_ready(session)
        if self.engine.model(session.wish.model) is None:
            self._configure(session, session.wish)
        return None

    def disconnect(self, *_reason: Any) -> None:
        session = self.sessions.pop(request.sid, None)  # type: ignore[attr-defined]
        if session:
            self.engine.leave(session)

    def heard(self, event: str, *arguments: Any) -> None:
        """Any message of a client: what is wrong with it is answered, the connection stays."""
        session = self.sessions.get(request.sid)  # type: ignore[attr-defined]
        if session is None:
            return
        message = arguments[0] if arguments and isinstance(arguments[0], dict) else {}
        handle: Callable[[Session, dict[str, Any]], None] = getattr(self, f"_on_{event}")
        try:
            handle(session, message)
        except Exception as problem:
            id = message.get("id")
            self.send(session.client, "error", {**({"id": id} if _is_name(id) else {}), **told(problem)})

    def _on_configure(self, session: Session, m: dict[str, Any]) -> None:
        """Fields that are left out stay as they were, as far as they fit the task and model."""
        old = session.pending or session.wish
        task, model, settings = self._which(m, old)
        if m.get("threshold") is not None:
            settings = {**settings, "threshold": m["threshold"]}
        info = models.catalog()[model]
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
        target = _text(m["target"]) if "target" in m else old.target if task == old.task else None
        self._configure(session, Wish(task, model, settings, method, params if method else {}, target))

    def _configure(self, session: Session, wish: Wish) -> None:
        if wish.model != session.wish.model:
            self.engine.withdraw(session)
        future = self.engine.ask(wish.model, session.client, again=True)
        session.pending = wish
        future.add_done_callback(partial(self._arrived, session, wish))

    def _arrived(self, session: Session, wish: Wish, future: Future[Model]) -> None:
        """The model of a wish is here, or will not come: then everything stays as it was."""
        if session.pending is not wish:
            return
        problem = future.exception()
        if problem:
            session.pending = None
            self.send(session.client, "error", told(problem))
        else:
            session.configure(wish)
        self._say_ready(session)

    def _say_ready(self, session: Session) -> None:
        self.send(session.client, "ready", messages.ready(
            self.settings, session.wish, self.engine.model(session.wish.model),
            self.app.config.get("PRESETS", [])))

    def _on_frame(self, session: Session, m: dict[str, Any]) -> None:
        credit = Credit(self.send, session.client, m.get("seq") if _is_name(m.get("seq")) else None)
        try:
            if not isinstance(credit.seq, int):
                raise BadInput(f"seq must be a whole number, got {str(m.get('seq'))[:40]!r}; "
                               "number the frames")
            wish = session.pending or session.wish
            task, model, settings = self._which(m, wish)
            if (task, model) != (wish.task, wish.model):
                wish = Wish(task, model, settings)
            start = time.perf_counter()
            frame = decode_live(m.get("jpeg"), self.settings)
            decode = round((time.perf_counter() - start) * 1000, 2)
            picture = session.keep(credit.seq, frame) if m.get("keep") is True else None
            self.engine.frame(session, Shot(frame, wish, credit, picture, decode))
        except Exception as problem:
            credit.failed(problem)

    def _on_explain(self, session: Session, m: dict[str, Any]) -> None:
        task, model, settings = self._which(m, session.pending or session.wish)
        method = _method(m.get("method") or session.wish.method or "grad_cam", task)
        params = checked(method.parameters, _dict(m.get("params"), "params"), method.title)
        check = m.get("check")
        if check not in (None, "", "curves", "sanity"):
            raise Unknown(f"there is no check {str(check)[:40]!r}; there are curves, sanity",
                          ["curves", "sanity"])
        ask = self._ask(session, m, Wish(task, model, settings, method.name, params, _text(m.get("target"))))
        ask.edited, ask.check = m.get("edited") is True, check or None
        self.engine.explain(session, ask)

    def _on_edit(self, session: Session, m: dict[str, Any]) -> None:
        mask = m.get("mask")
        if not isinstance(mask, bytes | bytearray):
            raise BadInput(f"mask must be the bytes of a PNG, got {type(mask).__name__}; send it binary")
        ask = self._ask(session, m, Wish(*self._which(m, session.pending or session.wish)))
        self.engine.edit(session, ask, {
            "mask": bytes(mask), "fill": _text(m.get("fill")) or "telea",
            "params": _dict(m.get("params"), "params"), "preview": m.get("preview") is True,
            "picture": _text(m.get("picture"))})

    def _on_stop(self, session: Session, m: dict[str, Any]) -> None:
        if m.get("id") is not None and not _is_name(m["id"]):
            raise BadInput(f"id must be the one of a request, got {str(m['id'])[:40]!r}; "
                           "leave it out to stop all")
        self.engine.stop(session, m.get("id"))

    def _ask(self, session: Session, m: dict[str, Any], wish: Wish) -> Ask:
        if not _is_name(m.get("id")):
            raise BadInput(f"id must be a number or a short text, got {str(m.get('id'))[:40]!r}; "
                           "give each request its own")
        session.picture(m.get("seq"))          # refused at once when it is gone
        return Ask(m["id"], m["seq"], wish)

    def _which(self, m: dict[str, Any], now: Wish) -> tuple[str, str, dict[str, Any]]:
        """Task, model and settings a message speaks of; what it leaves out is as configured."""
        catalog = models.catalog()
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
