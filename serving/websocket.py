"""One WebSocket: read by the thread that handles what is read, so that nothing piles up before it.

While a message is handled nothing more is read, and TCP holds the sender back. A message is given up as soon
as it is larger than may be, whatever its header says and however it is cut up.
"""
from __future__ import annotations

import logging
import queue
import select
import socket
import time
from collections import deque
from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import Any

from engineio import packet
from wsproto import ConnectionType, WSConnection, events
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import ProtocolError

from serving.limits import Bucket, one_line
from serving.metrics import Meter
from serving.packets import TEXT, Bad, envelope
from serving.settings import Settings

log = logging.getLogger("seewhy")

READ = 1 << 18                                 # bytes taken from the socket at once
FRAMES = 1_000                                 # pieces that one message may come in
PIECES, BURST = 1_000, 2_000                   # messages, fragments and pings a second; then reading pauses,
DEBT = 5.0                                     # and whoever is so many seconds ahead is hung up on
FAULTS = 5                                     # bad packets before a client is hung up on
OUTGOING = 8_000_000                           # bytes that may wait for a client to read them
WATCHED = 131_072                              # bytes that the system holds for somebody who watches a room
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class Outbox(queue.Queue):
    """What waits to be sent to one client; it ends, and with it the connection, when nobody reads."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self.bytes, self.ended = 0, False

    def _put(self, item: Any) -> None:
        if self.ended:
            return
        if item is not None and self.bytes > OUTGOING:
            self.queue.clear()
            self.ended, item = True, None
            log.warning("a page does not read what it is sent; it is hung up on")
        self.bytes += _size(item)
        super()._put(item)

    def _get(self) -> Any:
        item = super()._get()
        self.bytes -= _size(item)
        return item


def _size(item: Any) -> int:
    data = getattr(item, "data", None)
    return len(data) if isinstance(data, str | bytes | bytearray) else 100


class Wire:
    """What Engine.IO takes for a WebSocket: called with the request, it serves the connection to its end."""

    def __init__(self, settings: Settings, meter: Meter, handler: Any, server: Any):
        self._settings, self._meter, self._handler, self._server = settings, meter, handler, server
        self._line = handler.__self__          # Engine.IO's own idea of this connection
        self._line.wire = self
        self._ws = WSConnection(ConnectionType.SERVER)
        self._tcp: socket.socket
        self._sending = Lock()
        self._messages: deque[str | bytes] = deque()
        self._parts: list[Any] = []
        self._length = self._frames = self._faults = 0
        self._pace = Bucket(PIECES, BURST)
        self._over = self._hung_up = False
        self._address = ""
        self._rest = memoryview(b"")           # of what was passed on, and must go out before anything else
        self._owed = 0                         # attachments that were announced and are not written yet
        self._heard = self._pinged = self.moved = monotonic()
        self._joins_by: float | None = self._heard + settings.handshake

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        under_gunicorn = "gunicorn.socket" in environ
        self._tcp = environ["gunicorn.socket" if under_gunicorn else "werkzeug.socket"]
        self._address = str(environ.get("REMOTE_ADDR", ""))
        try:
            self._accept(environ)
        except (ProtocolError, OSError, ValueError):
            self._leave()
            start_response("400 BAD REQUEST", [("Content-Type", "text/plain")])
            return [b"expected the beginning of a WebSocket, got something else; use a WebSocket client\n"]
        try:
            self._handler(self)
        except Exception as problem:           # of a library: its stack says nothing that a person can act on
            log.error("a connection from %s ended by %r", self._address, problem)
        finally:
            self._leave()
        # Werkzeug would read on, take what is left on the wire (half a picture) for a request, and log it as
        # a bad one; this ends the thread of the connection instead, and by the other gunicorn closes it.
        raise StopIteration if under_gunicorn else SystemExit

    def wait(self) -> str | bytes | None:
        """The next message of Socket.IO, waited for; None when the connection is over."""
        while not self._hung_up:
            if self._messages:
                message = self._messages.popleft()
                if message == "3":             # a pong: that something came is all it says
                    continue
                try:
                    envelope(message)
                except Bad as problem:
                    self.fault(problem)
                else:
                    return message
            elif self._over:
                break
            else:
                self._read()
        return None

    def send(self, message: str | bytes) -> None:
        """Give it to the client's side; OSError when that takes nothing for too long."""
        if isinstance(message, bytes | bytearray):
            self._put(events.BytesMessage(data=message), -1)
        else:                                  # 45N-: a message of Socket.IO that N attachments follow
            self._put(events.TextMessage(data=message), int(message[2:].partition("-")[0])
                      if message.startswith("45") else 0)

    def watch(self) -> None:
        """From now on this client is passed pictures: old ones must not pile up in the system's buffer."""
        with suppress(OSError):
            self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WATCHED)

    def pass_on(self, data: bytes) -> bool:
        """Write what is in frames already, without waiting; False when the client takes nothing yet.

        What it takes only a part of goes on with the next call. `moved` is when it last took something.
        """
        if not self._sending.acquire(blocking=False):
            return False
        try:
            if self._hung_up or self._owed:
                return False
            self._push()
            if self._rest:
                return False
            self._rest = memoryview(data)
            self._push()
            return True
        finally:
            self._sending.release()

    @property
    def passed_on(self) -> bool:
        """Whether all that was passed on is written."""
        return not self._rest

    def close(self) -> None:
        """Say goodbye and hang up; whoever reads or writes hears of it at once."""
        if not self._hung_up:
            self._hang_up(CloseReason.NORMAL_CLOSURE)

    def joined(self, now: bool) -> None:
        """Whether the client has joined; who does not join in time is hung up on."""
        if now:
            self._joins_by = None
        elif self._joins_by is None:
            self._joins_by = monotonic() + self._settings.handshake

    def fault(self, problem: Exception) -> None:
        """The client sent nonsense: said once in the log, and borne a few times."""
        self._faults += 1
        if self._faults == 1:
            log.warning("%s sent what no page sends: %s", self._address, one_line(str(problem), 200))
        if self._faults >= FAULTS:
            self._hang_up(CloseReason.PROTOCOL_ERROR)

    def _accept(self, environ: dict[str, Any]) -> None:
        """Answer the request for a WebSocket; nothing is compressed a second time."""
        tick = min(self._settings.handshake, self._settings.silence, self._server.ping_interval,
                   self._server.ping_timeout) / 2
        self._tcp.settimeout(max(tick, 0.01))
        self._tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):          # not every system has all three
                self._tcp.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        headers = [(name[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1"))
                   for name, value in environ.items() if name.startswith("HTTP_")]
        self._ws.initiate_upgrade_connection(headers, environ.get("PATH_INFO") or "/")
        if not isinstance(next(self._ws.events(), None), events.Request):
            raise ValueError("no request for a WebSocket")
        self._put(events.AcceptConnection())

    def _read(self) -> None:
        """Take what is there, or wait a while for it; look whether the client is still alive."""
        now = monotonic()
        if self._joins_by is not None and now > self._joins_by:
            return self._hang_up(CloseReason.POLICY_VIOLATION)
        if now - self._pinged > self._server.ping_interval and self._joins_by is None:
            self._pinged = now
            with suppress(Exception):          # it is being closed, which is not for us to say
                self._line.send(packet.Packet(packet.PING))
        try:
            data = self._tcp.recv(READ)
        except TimeoutError:                   # only here: a server that was held up has not lost its clients
            if now - self._heard > self._server.ping_interval + self._server.ping_timeout:
                self._hang_up(None)
            return
        except OSError:
            data = b""
        if not data:
            self._over = True
            return
        self._heard = now
        try:
            self._ws.receive_data(data)
            pause = 0.0
            for event in self._ws.events():
                self._take(event)
                if self._over or self._hung_up:
                    return
                if not isinstance(event, events.Message) or event.frame_finished:
                    pause = self._pace.borrow()
        except ProtocolError:
            return self._hang_up(CloseReason.PROTOCOL_ERROR)
        if pause > DEBT:
            log.warning("%s sent more messages than any page sends; it is hung up on", self._address)
            return self._hang_up(CloseReason.POLICY_VIOLATION)
        if pause:
            time.sleep(pause)

    def _take(self, event: events.Event) -> None:
        if isinstance(event, events.Message):
            self._length += len(event.data)
            self._frames += event.frame_finished or not event.data
            most = TEXT if isinstance(event, events.TextMessage) else self._server.max_http_buffer_size
            if self._length > most or self._frames > FRAMES:
                log.warning("%s sent a message of more than %s bytes or %s pieces; it is hung up on",
                            self._address, most, FRAMES)
                return self._hang_up(CloseReason.MESSAGE_TOO_BIG)
            self._parts.append(event.data)
            if event.message_finished:
                empty = "" if isinstance(event, events.TextMessage) else b""
                self._messages.append(empty.join(self._parts))  # type: ignore[arg-type]
                self._parts, self._length, self._frames = [], 0, 0
        elif isinstance(event, events.Ping):
            with suppress(OSError):
                self._put(event.response())
        elif isinstance(event, events.CloseConnection):
            with suppress(OSError, ProtocolError):
                self._put(event.response())
            self._over = True

    def _push(self) -> None:
        """Write on what was passed on, as far as that goes at once."""
        with suppress(OSError):                # a dead connection is the reader's to notice
            while self._rest and _takes(self._tcp):
                self._rest = self._rest[self._tcp.send(self._rest):]
                self.moved = monotonic()

    def _put(self, event: events.Event, owed: int = 0) -> None:
        """Write it out, as long as the other side takes some of it now and then."""
        with self._sending:
            if self._hung_up and not isinstance(event, events.CloseConnection):
                raise OSError("the connection is closed")
            data, since = self._ws.send(event), monotonic()
            rest = memoryview(b"".join((self._rest, data)) if self._rest else data)
            self._rest, self._owed = memoryview(b""), max(0, self._owed + owed)
            while rest:
                try:
                    rest = rest[self._tcp.send(rest):]
                    since = monotonic()
                except TimeoutError:
                    if self._hung_up or monotonic() - since > self._settings.silence:
                        self._hung_up = True
                        self._shut()
                        raise OSError("the other side reads nothing") from None

    def _hang_up(self, reason: CloseReason | None) -> None:
        """With a reason if there is somebody to tell and nothing else is being said."""
        if reason != CloseReason.NORMAL_CLOSURE:
            said = "silent" if reason is None else reason.name.lower().replace("_", " ")
            self._meter.count("refused", said)
        self._hung_up = True
        self._messages.clear()
        self._parts = []
        if reason is not None and self._sending.acquire(blocking=False):
            try:
                self._tcp.settimeout(0.05)
                self._tcp.send(self._ws.send(events.CloseConnection(code=reason)))
            except (OSError, ProtocolError):
                pass                           # it hears of it by the end of the connection
            finally:
                self._sending.release()
        self._shut()

    def _shut(self) -> None:
        """Wakes the reader and the writer wherever they wait; the descriptor is closed by who opened it."""
        with suppress(OSError):
            self._tcp.shutdown(socket.SHUT_RDWR)

    def _leave(self) -> None:
        """Nothing of this connection stays, however it ended."""
        with suppress(Exception):
            self._line.close(wait=False, abort=True)
        if hasattr(self, "_tcp") and self._ws.connection is not None:
            self.close()
        self._server.sockets.pop(self._line.sid, None)


def _takes(tcp: socket.socket) -> bool:
    """Whether something can be written at once."""
    if not hasattr(select, "poll"):            # Windows, which has no bound on what select may be asked
        return bool(select.select([], [tcp], [], 0)[1])
    asked = select.poll()
    asked.register(tcp, select.POLLOUT)
    return bool(asked.poll(0))
