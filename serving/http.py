"""Werkzeug's server with bounds: how many connections, how long a request takes to come, how much it is."""
from __future__ import annotations

import errno
import io
import logging
import socket
import sys
import time
from collections import Counter
from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import Any

from flask import Flask
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from serving import tls
from serving.access import SMALL
from serving.metrics import Meter
from serving.settings import Settings

log = logging.getLogger("seewhy")

HEAD = 64_000                                  # bytes of a request before its body
PAUSE = 0.2                                    # seconds to wait when there is no descriptor to accept with
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Incoming(io.RawIOBase):
    """A request as it is read: all of it within so many seconds, and so many bytes."""

    def __init__(self, tcp: socket.socket, seconds: float):
        self._tcp, self._seconds = tcp, seconds
        self._ends, self._left = monotonic() + seconds, HEAD + SMALL

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._ends - monotonic()
        if left <= 0:
            raise TimeoutError("the request did not come in time")
        self._tcp.settimeout(left)
        try:
            count = self._tcp.recv_into(buffer, min(len(buffer), self._left))
        finally:
            self._tcp.settimeout(self._seconds)          # what an answer may take to be read, piece by piece
        self._left -= count
        return count


class Handler(WSGIRequestHandler):
    """One connection."""

    server: Server

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.settings.handshake)
        self.rfile.close()
        self.rfile = io.BufferedReader(Incoming(self.connection, self.server.settings.handshake))

    def log(self, type: str, message: str, *args: Any) -> None:
        """No log of requests: what is looked at is private, and nonsense is nobody's business."""


class Server(ThreadedWSGIServer):
    """A thread for each connection, and only so many of them, in all and of one address."""

    def __init__(self, settings: Settings, app: Flask):
        self.settings, self._open, self._counting = settings, Counter[str](), Lock()
        self._meter: Meter | None = app.extensions.get("meter")
        super().__init__(settings.host, settings.port, app, Handler)
        # Werkzeug is not told how to secure what it listens on: it would wait for each handshake before it
        # accepts the next connection.
        self.ssl_context = tls.context(settings.certificate) if settings.certificate else None

    def get_request(self) -> tuple[Any, Any]:
        try:
            return super().get_request()
        except OSError as problem:
            if problem.errno in _EXHAUSTED:    # it still waits: to ask again at once would only spin
                log.warning("no connection can be accepted for the moment: %s", problem.strerror)
                time.sleep(PAUSE)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        address = str(client_address[0])
        with self._counting:
            refused = self._refusal(address)
            if refused is None:
                self._open[address] += 1
        if refused:
            return self._turn_away(request, refused)
        try:
            super().process_request(request, client_address)
        except RuntimeError as problem:        # no further thread can be started
            self._gone(address)
            log.warning("a connection could not be served: %s", problem)
            self._turn_away(request, "this machine can serve no further connection; try again in a moment")

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            with suppress(SystemExit):         # so a WebSocket ends the thread that served it
                super().process_request_thread(request, client_address)
        finally:
            self._gone(str(client_address[0]))

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection, in its own thread."""
        if self.ssl_context is None:
            return super().finish_request(request, client_address)
        line = tls.secured(request, self.ssl_context, self.settings.handshake)
        if line is not None:
            try:
                super().finish_request(line, client_address)
            finally:
                self.shutdown_request(line)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """What went wrong with one connection is one line: the application tells its own mistakes itself."""
        log.warning("a connection from %s ended by %r", client_address[0], sys.exception())

    def connections(self) -> int:
        """How many are open."""
        with self._counting:
            return self._open.total()

    def _refusal(self, address: str) -> str | None:
        if self._open.total() >= self.settings.connections:
            return (f"{self.settings.connections} connections are open, more than this server takes; "
                    "try again in a moment")
        if self._open[address] >= self.settings.per_address:
            return (f"{self.settings.per_address} connections from your address are open, more than this "
                    "server takes; close a page and try again")
        return None

    def _gone(self, address: str) -> None:
        with self._counting:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]

    def _turn_away(self, request: Any, sentence: str) -> None:
        """In words, if they go out at once; nobody is waited for."""
        log.warning("a connection was refused: %s", sentence)
        if self._meter:
            self._meter.count("refused", "connections")
        body = f"{sentence}\n".encode()
        with suppress(OSError):
            request.settimeout(0)
            request.send(b"HTTP/1.1 503 SERVICE UNAVAILABLE\r\nConnection: close\r\nRetry-After: 5\r\n"
                         b"Content-Type: text/plain; charset=utf-8\r\n"
                         b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.shutdown_request(request)
