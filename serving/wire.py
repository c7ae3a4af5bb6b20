"""All that we need of the insides of werkzeug, simple-websocket, Engine.IO and Socket.IO, and nowhere else.

None of it is promised to stay. `relied_on` says what is not as it was read, in sentences; a test asks.
"""
from __future__ import annotations

import inspect
import socket
import time
from collections.abc import Callable
from importlib.metadata import version
from threading import RLock
from typing import Any

from engineio.async_drivers.threading import SimpleWebSocketWSGI
from flask import Flask, request
from flask_socketio import SocketIO

from serving.settings import Settings

READ = {"werkzeug": "3.1", "simple-websocket": "1.1", "python-engineio": "4.15", "python-socketio": "5.18",
        "flask-socketio": "5.7"}
"""The versions whose source was read; another one may still do, when relied_on finds what is looked for."""
MASK_BYTES = 2_000_000                         # the largest of all that a page sends
BEYOND_LIMITS = 500_000                        # what is only a little too large gets an answer in words


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


def connected(app: Flask, settings: Settings) -> SocketIO:
    """Socket.IO over our WebSocket; no message larger than a mask is read."""
    io = SocketIO(app, async_mode="threading", async_handlers=False, transports=["websocket"],
                  allow_upgrades=False, always_connect=True, manage_session=False,
                  cors_allowed_origins=settings.allowed_origins,
                  max_http_buffer_size=max(MASK_BYTES, settings.jpeg_bytes) + BEYOND_LIMITS)
    io.server.eio._async = {**io.server.eio._async, "websocket": Wire}
    return io


EVENTS = ("configure", "frame", "explain", "edit", "stop")


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


def drain(io: SocketIO, patience: float) -> None:
    """Wait until last words are sent; the writers of the sockets are threads of their own."""
    lines = tuple(io.server.eio.sockets.values())
    end = time.monotonic() + patience
    while any(not line.queue.empty() for line in lines) and time.monotonic() < end:
        time.sleep(0.01)
    if lines:
        time.sleep(0.05)


def relied_on() -> list[str]:
    """What is missing of all this, one sentence each; empty when everything is as it was read."""
    import engineio
    import simple_websocket
    import socketio
    import werkzeug.serving

    server = socketio.Server(async_mode="threading")
    of_socket = inspect.getsource(engineio.base_socket.BaseSocket.__init__)
    wsgi = inspect.signature(SimpleWebSocketWSGI.__init__).parameters
    accept = inspect.signature(simple_websocket.Server.__init__).parameters
    checks = {
        "python-engineio: SimpleWebSocketWSGI(handler, server, **options) makes a WebSocket":
            list(wsgi)[1:3] == ["handler", "server"] and len(wsgi) == 4,
        "simple-websocket: Server takes receive_bytes and max_message_size":
            {"receive_bytes", "max_message_size"} <= accept.keys(),
        "python-engineio: the server's _async holds the class named 'websocket'":
            isinstance(getattr(server.eio, "_async", None), dict) and "websocket" in server.eio._async,
        "python-engineio: the server has max_http_buffer_size": hasattr(server.eio, "max_http_buffer_size"),
        "python-engineio: the server knows its sockets, and each has a queue":
            isinstance(getattr(server.eio, "sockets", None), dict) and "self.queue" in of_socket,
        "python-socketio: every packet, acknowledgements too, is sent by _send_packet":
            inspect.getsource(socketio.Server).count("self._send_packet(") >= 3,
        "werkzeug: the environment holds the connection as werkzeug.socket":
            "werkzeug.socket" in inspect.getsource(werkzeug.serving.WSGIRequestHandler.make_environ),
    }
    found = [f"{name} {version(name)} is installed and {read} was read: see that serving/wire.py still fits, "
             "then change READ" for name, read in READ.items()
             if not version(name).startswith(f"{read}.")]
    return found + [f"not so any more: {what}; read the new source and mend serving/wire.py"
                    for what, is_so in checks.items() if not is_so]
