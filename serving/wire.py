"""Socket.IO on our WebSocket. All that we need of the insides of libraries is here, in websocket.py
(Engine.IO, wsproto), packets.py (Socket.IO) and http.py (Werkzeug), and nowhere else.

None of it is promised to stay. `relied_on` says what is not as it was read, in sentences; a test asks.
"""
from __future__ import annotations

import inspect
import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from threading import RLock
from typing import Any

from flask import Flask, request
from flask_socketio import SocketIO

from serving import access
from serving.limits import calm_logs
from serving.metrics import Meter
from serving.packets import Bad, Packet, Unfit, is_connect
from serving.settings import Settings
from serving.websocket import Outbox, Wire

log = logging.getLogger("seewhy")

READ = {"werkzeug": "3.1", "wsproto": "1.3", "python-engineio": "4.15", "python-socketio": "5.18",
        "flask-socketio": "5.7"}
"""The versions whose source was read; another one may still do, when relied_on finds what is looked for."""
MASK_BYTES = 2_000_000                         # the largest of all that a page sends
PING_TIMEOUT = 40                              # seconds; a server may be held up for thirty of them
CLOSING = {"message": "the server is closing; this page connects again by itself when it is back"}
BEYOND_LIMITS = 500_000                        # what is only a little too large gets an answer in words


def connected(app: Flask, settings: Settings) -> SocketIO:
    """Socket.IO over our WebSocket; no message larger than a mask is read."""
    calm_logs()
    meter = app.extensions.setdefault("meter", Meter())
    io = SocketIO(app, async_mode="threading", async_handlers=False, transports=["websocket"],
                  allow_upgrades=False, always_connect=True, manage_session=False, monitor_clients=False,
                  serializer=Packet, ping_timeout=PING_TIMEOUT,
                  cors_allowed_origins=[],     # who may connect is known at the gate (access.py) alone
                  max_http_buffer_size=max(MASK_BYTES, settings.jpeg_bytes) + BEYOND_LIMITS)
    eio = io.server.eio
    eio._async = {**eio._async, "websocket": partial(Wire, settings, meter), "queue": Outbox}
    greet = io.server._handle_eio_connect

    def came(eio_sid: str, environ: dict[str, Any]) -> Any:
        # Wire asks for signs of life itself: a sleeping thread for each client, gone or not, is not needed.
        line = eio.sockets[eio_sid]
        line.schedule_ping, line.last_ping = lambda: None, None
        return greet(eio_sid, environ)

    eio.on("connect", came)
    io.server._handle_eio_message = _guarded(io)
    eio.on("message", io.server._handle_eio_message)
    app.wsgi_app = access.gate(app.wsgi_app, settings, meter)  # type: ignore[method-assign,arg-type]
    return io


def _guarded(io: SocketIO) -> Callable[[str, str | bytes], None]:
    """Socket.IO's ear for messages; what is wrong with one is answered or counted, and no stack logged."""
    server, handle = io.server, io.server._handle_eio_message

    def client(eio_sid: str) -> str | None:
        return server.manager.sid_from_eio_sid(eio_sid, "/")

    def take(eio_sid: str, data: str | bytes) -> None:
        announced = eio_sid in server._binary_packet
        if announced == isinstance(data, str):
            server._binary_packet.pop(eio_sid, None)
            raise Bad("a text where an attachment was announced, or an attachment that was not")
        if is_connect(data) == (client(eio_sid) is not None) and isinstance(data, str):
            raise Bad("a message of somebody who has not joined, or who joins twice")
        handle(eio_sid, data)

    def hear(eio_sid: str, data: str | bytes) -> None:
        line = server.eio.sockets.get(eio_sid)
        wire: Wire | None = getattr(line, "wire", None)
        try:
            take(eio_sid, data)
        except Bad as problem:
            if isinstance(problem, Unfit) and client(eio_sid):
                io.emit("error", {**problem.whose, "code": "bad_input", "message": str(problem)},
                        to=client(eio_sid))
            if wire:
                wire.fault(problem)
        except Exception:
            log.exception("a message could not be handled")
            if wire:
                wire.fault(Bad("something that could not be handled"))
        if line and wire:
            wire.joined(client(eio_sid) is not None)
            if is_connect(data) and client(eio_sid) is None:
                line.close(wait=False)         # it was refused, and told why

    return hear


EVENTS = ("configure", "frame", "explain", "edit", "stop",
          "present", "join", "leave", "tab", "hand", "show", "poll", "tap", "reveal", "lend", "borrow")


def listen(io: SocketIO, found: Callable[[str], Any]) -> None:
    """Hand what clients say to the Live that `found` finds for them."""
    for event in EVENTS:
        io.on_event(event, lambda *message, event=event: found(caller()).heard(event, *message))
    io.on_event("connect", lambda *auth: found(caller()).connect(*auth))
    io.on_event("disconnect", lambda *reason: found(caller()).disconnect(*reason))


def one_at_a_time(io: SocketIO) -> Callable[..., None]:
    """An emit that any thread may call.

    A binary message is several packets; no other, an acknowledgement say, may come in between.
    """
    speaking = RLock()

    def alone(speak: Callable[..., Any]) -> Callable[..., Any]:
        def spoken(*args: Any, **kwargs: Any) -> Any:
            with speaking:
                return speak(*args, **kwargs)

        return spoken

    io.server._send_packet = alone(io.server._send_packet)
    return alone(io.emit)


def caller() -> str:
    """The client whose message is being handled."""
    return str(request.sid)  # type: ignore[attr-defined]


def wire_of(io: SocketIO, client: str) -> Wire | None:
    """The WebSocket of a client; None when there is none, as in a test."""
    line = io.server.eio.sockets.get(io.server.manager.eio_sid_from_sid(client, "/"))
    found = getattr(line, "wire", None)
    return found if isinstance(found, Wire) else None


def hang_up(io: SocketIO, client: str) -> None:
    """End a client's connection, once what was said to it is sent."""
    line = io.server.eio.sockets.get(io.server.manager.eio_sid_from_sid(client, "/"))
    if line:
        line.close(wait=False)


def drain(io: SocketIO, patience: float) -> None:
    """Wait until last words are sent, then hang up; the writers of the sockets are threads of their own."""
    lines = tuple(io.server.eio.sockets.values())
    end = time.monotonic() + patience
    while any(not line.queue.empty() for line in lines) and time.monotonic() < end:
        time.sleep(0.01)
    if lines:
        time.sleep(0.05)
    for line in lines:
        with suppress(Exception):              # it has gone by itself
            line.close(wait=False)


def relied_on() -> list[str]:
    """What is missing of all this, one sentence each; empty when everything is as it was read."""
    import engineio
    import socketio
    import werkzeug.serving
    import wsproto

    server = socketio.Server(async_mode="threading")
    of_socket = inspect.getsource(engineio.base_socket.BaseSocket.__init__)
    upgrade = inspect.getsource(engineio.socket.Socket)
    of_server = inspect.getsource(socketio.Server)
    checks = {
        "python-engineio: a socket makes its WebSocket by _async['websocket'](its handler, the server)":
            "self.server._async['websocket'](\n            self._websocket_handler, self.server)" in upgrade,
        "python-engineio: what it needs of a WebSocket is wait, send and close":
            set(re.findall(r"\bws\.\w+", upgrade)) == {"ws.wait", "ws.send", "ws.close"},
        "python-engineio: the server's _async holds the class named 'websocket' and the one named 'queue'":
            isinstance(getattr(server.eio, "_async", None), dict)
            and {"websocket", "queue"} <= server.eio._async.keys(),
        "python-engineio: a socket sends its pings by schedule_ping": "def schedule_ping(self)" in upgrade,
        "python-engineio: the server has max_http_buffer_size, ping_interval and ping_timeout":
            all(hasattr(server.eio, n) for n in ("max_http_buffer_size", "ping_interval", "ping_timeout")),
        "python-engineio: the server knows its sockets, and each has a queue":
            isinstance(getattr(server.eio, "sockets", None), dict) and "self.queue" in of_socket,
        "python-socketio: every packet, acknowledgements too, is sent by _send_packet":
            of_server.count("self._send_packet(") >= 3,
        "python-socketio: a connection begins with _handle_eio_connect":
            "def _handle_eio_connect(self, eio_sid, environ)" in of_server,
        "python-socketio: messages come by _handle_eio_message, and _binary_packet waits for attachments":
            "def _handle_eio_message(self, eio_sid, data)" in of_server and hasattr(server, "_binary_packet"),
        "python-socketio: the manager knows a connection by its client, and a client by its connection":
            all(hasattr(server.manager, n) for n in ("sid_from_eio_sid", "eio_sid_from_sid")),
        "wsproto: a request that was read already begins a connection":
            hasattr(wsproto.WSConnection, "initiate_upgrade_connection"),
        "werkzeug: the environment holds the connection as werkzeug.socket":
            "werkzeug.socket" in inspect.getsource(werkzeug.serving.WSGIRequestHandler.make_environ),
        "werkzeug: a request came by https where the server has an ssl_context":
            "self.server.ssl_context" in inspect.getsource(werkzeug.serving.WSGIRequestHandler.make_environ),
    }
    found = [f"{name} {version(name)} is installed and {read} was read: see that serving/wire.py still fits, "
             "then change READ" for name, read in READ.items()
             if not version(name).startswith(f"{read}.")]
    return found + [f"not so any more: {what}; read the new source and mend serving/wire.py"
                    for what, is_so in checks.items() if not is_so]
