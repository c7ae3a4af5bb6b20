"""What a client may say on the wire, a short JSON text and at most one attachment; and how it is told.

Everything here is bounded before anything is made of it. What no honest page says is Bad; a message that
could be understood, but for a value in it, is Unfit: a sentence for the client, with the number it sent.
"""
from __future__ import annotations

import json
import math
import re
from typing import Any

from socketio import packet

TEXT = 65_536                                  # letters of one text
DEPTH = 16                                     # lists and objects within each other
VALUES = 5_000                                 # numbers, texts, lists and objects in one message
DIGITS = 20                                    # a longer whole number is not even read
WIDEST = 2**63                                 # numbers beyond do not fit where numbers are worked with

_CONNECT, _DISCONNECT, _EVENT, _BINARY = "0", "1", "2", "5"
_OURS = ("connect", "disconnect", "connect_error")
_SHAPE = re.compile(r"([0125])(?:(\d{1,10})-)?(?:(/[^,?]{0,100})(?:\?[^,]{0,100})?(?:,|$))?(\d{1,15})?(.*)",
                    re.ASCII | re.DOTALL)
_LONG = object()                               # stands for a whole number of more than DIGITS


class Bad(ValueError):
    """Not what any client of this protocol sends."""


class Unfit(Bad):
    """A value that cannot be taken; `whose` is the seq and id of its message, as far as they are known."""

    def __init__(self, sentence: str, whose: dict[str, Any] | None = None):
        super().__init__(sentence)
        self.whose = whose or {}


class Packet(packet.Packet):
    """A packet of Socket.IO: connect, disconnect, an event, an event with one attachment."""

    def decode(self, encoded_packet: str) -> int:
        """Take a text apart; how many attachments follow."""
        if not isinstance(encoded_packet, str) or len(encoded_packet) > TEXT:
            raise Bad(f"a message is a text of at most {TEXT:,} letters")
        found = _SHAPE.fullmatch(encoded_packet)
        if found is None:
            raise Bad("not a packet of Socket.IO")
        kind, count, namespace, id, text = found.groups()
        if (count is None) != (kind != _BINARY):
            raise Bad("attachments are announced by events, and by nothing else")
        if namespace not in (None, "/") and kind != _CONNECT:
            raise Bad("there is one namespace, /")
        self.packet_type, self.namespace = int(kind), namespace
        self.id = None if id is None else int(id)
        self.data = _read(text) if text else None
        if kind in (_EVENT, _BINARY):
            _check_event(self.data, None if count is None else int(count))
        elif not (self.data is None or (kind == _CONNECT and isinstance(self.data, dict))):
            raise Bad("to connect takes names with values, and to disconnect takes nothing")
        else:
            _check_values(self.data)
        return 0 if count is None else 1


def envelope(message: str | bytes) -> None:
    """Raise Bad for what is not of Engine.IO's packets that a client may send: a message, or goodbye."""
    if isinstance(message, str) and not (
            message == "1" or (message[:1] == "4" and message[1:2] in (_CONNECT, _DISCONNECT, _EVENT, _BINARY)
                               and len(message) > 1)):
        raise Bad("not a packet of Engine.IO that a page sends")


def is_connect(message: str | bytes) -> bool:
    """Whether a message of Socket.IO asks to join."""
    return isinstance(message, str) and message[:1] == _CONNECT


def _read(text: str) -> Any:
    def whole(digits: str) -> Any:
        return int(digits) if len(digits) <= DIGITS else _LONG

    try:
        return json.loads(text, parse_int=whole)
    except RecursionError:
        raise Unfit(_TOO_DEEP) from None
    except ValueError:
        raise Bad("not JSON") from None


_TOO_DEEP = f"a message may have lists and objects {DEPTH} deep, got deeper; send it flatter"


def _check_event(data: Any, attachments: int | None) -> None:
    if not (isinstance(data, list) and data and isinstance(data[0], str)):
        raise Bad("an event is a list that begins with a name")
    if data[0] in _OURS:
        raise Bad("that event is not a client's to send")
    whose = _whose(data)
    try:
        places = _check_values(data)
    except Unfit as problem:
        problem.whose = whose
        raise
    if attachments is None:
        return
    if attachments != 1:
        raise Unfit(f"a message may have one attachment, got {attachments}; send one picture or mask "
                    "at a time", whose)
    if len(places) != 1 or type(places[0]) is not int or places[0] != 0:
        raise Unfit("the attachment must be named once in its message, as number 0; let a Socket.IO client "
                    "send it", whose)


def _whose(data: list[Any]) -> dict[str, Any]:
    """The seq or id that an answer can repeat."""
    fields = data[1] if len(data) > 1 and isinstance(data[1], dict) else {}
    name = "seq" if data[0] == "frame" else "id"
    value = fields.get(name)
    fits = abs(value) < WIDEST if isinstance(value, int) and not isinstance(value, bool) else \
        isinstance(value, str) and 0 < len(value) <= 100 and value.isprintable()
    return {name: value} if fits else {}


def _check_values(data: Any) -> list[Any]:
    """Everything within its bounds; the numbers of the attachments that are named."""
    waiting, seen, places = [(data, 1)], 0, []
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if seen > VALUES:
            raise Unfit(f"a message may have {VALUES:,} values, got more; send less at once")
        if depth > DEPTH:
            raise Unfit(_TOO_DEEP)
        if isinstance(value, dict):
            if value.get("_placeholder"):
                places.append(value.get("num"))
            for name in value:
                _check_text(name)
            waiting.extend((inner, depth + 1) for inner in value.values())
        elif isinstance(value, list):
            waiting.extend((inner, depth + 1) for inner in value)
        elif isinstance(value, str):
            _check_text(value)
        elif value is _LONG or (isinstance(value, int) and abs(value) >= WIDEST):
            raise Unfit("a whole number must fit into 64 bits, got a larger one; send a smaller number")
        elif isinstance(value, float) and not math.isfinite(value):
            raise Unfit("expected a number, got an infinite one or none at all; send a finite number")
    return places


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Unfit("expected a text in Unicode, got half of a surrogate pair in it; send whole letters"
                        ) from None


def framed(event: str, fields: dict[str, Any]) -> bytes:
    """A message as a server's WebSocket frames, the same for every client: unmasked, uncompressed."""
    parts = packet.Packet(packet.EVENT, data=[event, fields], namespace="/").encode()
    texts = parts if isinstance(parts, list) else [parts]
    return b"".join(_frame(0x81, f"4{part}".encode()) if isinstance(part, str) else _frame(0x82, part)
                    for part in texts)


def _frame(kind: int, data: bytes) -> bytes:
    """RFC 6455, section 5.2: a whole message in one frame."""
    size = len(data)
    if size < 126:
        head = bytes((kind, size))
    elif size < 65_536:
        head = bytes((kind, 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((kind, 127)) + size.to_bytes(8, "big")
    return head + data
