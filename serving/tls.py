"""https: each connection is secured in its own thread, and may be read by one thread while another writes."""
from __future__ import annotations

import selectors
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any, TypeVar

HANDSHAKE = b"\x16"                            # what TLS begins with; anything else is http without the s

Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)
Done = TypeVar("Done")


class Line(ssl.SSLSocket):
    """OpenSSL lets one thread at a time work on a connection, and Python 3.11 does not see to it.

    So the socket itself never waits: whoever has to wait does so outside of the lock.
    """

    _patience: float | None = None
    _ready = False
    _turn: Lock

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        self._patience, self._turn, self._ready = self.gettimeout(), Lock(), True
        super().settimeout(0.0)

    def settimeout(self, value: float | None) -> None:
        self._patience = value
        if not self._ready:
            super().settimeout(value)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        return self._patiently(lambda: super(Line, self).recv(buflen, flags))

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        return self._patiently(lambda: super(Line, self).recv_into(buffer, nbytes, flags))

    def send(self, data: Any, flags: int = 0) -> int:
        return self._patiently(lambda: super(Line, self).send(data, flags))

    def shutdown(self, how: int) -> None:
        """Of the connection below: whoever reads or writes at this moment still has its TLS."""
        socket.socket.shutdown(self, how)

    def _patiently(self, work: Callable[[], Done]) -> Done:
        ends = None if self._patience is None else monotonic() + self._patience
        while True:
            try:
                with self._turn:
                    return work()
            except ssl.SSLWantReadError:
                wants = selectors.EVENT_READ
            except ssl.SSLWantWriteError:
                wants = selectors.EVENT_WRITE
            left = None if ends is None else ends - monotonic()
            if left is not None and left <= 0:
                raise TimeoutError("the other side took too long")
            try:
                with Selector() as waiting:
                    waiting.register(self, wants)
                    waiting.select(left)
            except ValueError:                 # it was closed meanwhile
                raise OSError("the connection is closed") from None


def context(file: Path) -> ssl.SSLContext:
    """How https is spoken with the key and certificate in this file."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_cert_chain(file)
    made.set_alpn_protocols(["http/1.1"])
    made.sslsocket_class = Line
    return made


def secured(tcp: socket.socket, how: ssl.SSLContext, seconds: float) -> ssl.SSLSocket | None:
    """The connection with TLS around it; None when the other side speaks none, and was told where to go.

    A browser that does not know the certificate yet breaks off here: that is not worth a word.
    """
    with suppress(OSError):
        tcp.settimeout(seconds)
        first = tcp.recv(1, socket.MSG_PEEK)
        if first == HANDSHAKE:
            line = how.wrap_socket(tcp, server_side=True, do_handshake_on_connect=False)
            try:
                line.do_handshake()
            except BaseException:
                line.close()
                raise
            return line
        if first:
            _redirect(tcp)
    return None


def _redirect(tcp: socket.socket) -> None:
    """To the same address with https; the request is not even read, so nothing of it is repeated."""
    host, port = tcp.getsockname()[:2]
    body = b"this page is served by https alone; put https:// before its address\n"
    tcp.sendall(b"HTTP/1.1 308 PERMANENT REDIRECT\r\nConnection: close\r\nCache-Control: no-store\r\n"
                b"Location: https://%s:%d/\r\nContent-Type: text/plain; charset=utf-8\r\n"
                b"Content-Length: %d\r\n\r\n" % ((f"[{host}]" if ":" in host else host).encode(), port,
                                                 len(body)) + body)
    tcp.shutdown(socket.SHUT_WR)
    tcp.settimeout(1.0)
    with suppress(OSError):                    # to close with something unread would take the answer back
        while tcp.recv(65536):
            pass
