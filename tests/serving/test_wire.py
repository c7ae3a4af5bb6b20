"""A real server, real sockets: who may connect, what is refused, what is sent, and what is never written."""
from __future__ import annotations

import http.client
import logging
import os
import sys
import threading
import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import simple_websocket
import socketio
from stand_in import ANSWERS, colour, engine_of, jpeg, until

from serving import wire
from serving.access import content_policy
from serving.events import Live
from serving.settings import Settings

# A connection that was closed ends its thread by SystemExit, which pytest reports and Python does not.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class Caller:
    """The official client for Python."""

    def __init__(self, url: str):
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.io = socketio.Client(reconnection=False)
        # It gives each message a thread of its own; here they are taken in the order in which they came.
        take = self.io.eio._trigger_event
        self.io.eio._trigger_event = lambda *args, **kwargs: take(*args, **{**kwargs, "run_async": False})
        self.io.on("*", lambda event, data: self.heard.append((event, data)))
        self.io.connect(url, transports=["websocket"])
        until(lambda: any(r["labels"] for r in self.all("ready")), "the first model")

    def all(self, *events: str, **fields: Any) -> list[dict[str, Any]]:
        return [d for e, d in tuple(self.heard)
                if e in events and all(d.get(k) == v for k, v in fields.items())]

    def one(self, *events: str, **fields: Any) -> dict[str, Any]:
        return until(lambda: self.all(*events, **fields), f"{events} {fields}")[0]

    def frame(self, seq: int, data: bytes, **fields: Any) -> dict[str, Any]:
        self.io.emit("frame", {"seq": seq, "jpeg": data, **fields})
        return self.one(*ANSWERS, seq=seq)


def asked(url: str, path: str, **headers: str) -> http.client.HTTPResponse:
    line = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    line.request("GET", path, headers=headers)
    return line.getresponse()


UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
           "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}


def test_frames_and_maps_over_a_real_socket(online: tuple[Live, str]) -> None:
    live, url = online
    caller = Caller(url)
    caller.io.emit("configure", {"method": "toy_odd"})
    for seq, name in enumerate(["red", "green", "blue"] * 3, 1):
        assert caller.frame(seq, jpeg(colour(name)))["classes"][0]["label"] == name
        said = caller.one("explanation", seq=seq)
        assert said["title"] == f"why {name}" and len(said["heat"]) == 256
    caller.io.disconnect()
    until(lambda: not live.sessions, "the server to notice")


def test_clients_that_talk_at_once_each_hear_their_own(online: tuple[Live, str]) -> None:
    _, url = online
    callers = {name: Caller(url) for name in ("red", "green", "blue")}

    def talk(name: str) -> None:
        caller, data = callers[name], jpeg(colour(name))
        caller.io.emit("configure", {"method": "toy_odd"})
        for seq in range(1, 41):
            caller.io.emit("frame", {"seq": seq, "jpeg": data, "keep": True})
            caller.io.emit("explain", {"id": seq, "seq": seq, "method": "toy_odd"})
        caller.one(*ANSWERS, seq=40)
        caller.one("explanation", "error", id=40)

    talks = [threading.Thread(target=talk, args=(name,)) for name in callers]
    for t in talks:
        t.start()
    for t in talks:
        t.join(30)
    for name, caller in callers.items():
        assert caller.io.connected
        assert len(caller.all(*ANSWERS, model="toy")) + len(caller.all("dropped")) == 40
        assert {e["title"] for e in caller.all("explanation")} == {f"why {name}"}
        caller.io.disconnect()


def test_a_frame_far_over_the_limit_is_answered_and_a_flood_is_cut_off(online: tuple[Live, str]) -> None:
    _, url = online
    caller = Caller(url)
    assert caller.frame(1, jpeg(colour("red")) + bytes(2_000_000))["code"] == "too_large"
    assert caller.frame(2, jpeg(colour("red")))["classes"]
    caller.io.emit("frame", {"seq": 3, "jpeg": bytes(2_600_000)})
    until(lambda: not caller.io.connected, "the connection to be closed")
    assert Caller(url).frame(1, jpeg(colour("blue")))["classes"][0]["label"] == "blue"


def test_only_our_own_pages_may_connect(online: tuple[Live, str]) -> None:
    _, url = online
    port = urlsplit(url).port
    path = "/socket.io/?EIO=4&transport=websocket"
    for origin in (f"http://localhost:{port}", f"http://127.0.0.1:{port}"):
        assert asked(url, path, Origin=origin, **UPGRADE).status == 101
    for origin in ("http://example.org", f"http://example.org:{port}", "http://localhost:1", "null",
                   f"https://localhost:{port}", f"http://localhost:{port}.example.org"):
        assert asked(url, path, Origin=origin, **UPGRADE).status == 400


def test_polling_is_refused(online: tuple[Live, str]) -> None:
    _, url = online
    assert asked(url, "/socket.io/?EIO=4&transport=polling").status == 400
    assert asked(url, "/socket.io/?EIO=4").status == 400


def test_nothing_is_compressed_a_second_time(online: tuple[Live, str]) -> None:
    _, url = online
    reply = asked(url, "/socket.io/?EIO=4&transport=websocket", **UPGRADE,
                  **{"Sec-WebSocket-Extensions": "permessage-deflate"})
    assert reply.status == 101 and reply.getheader("Sec-WebSocket-Extensions") is None


def test_raw_nonsense_on_the_socket_hurts_nobody_else(online: tuple[Live, str]) -> None:
    _, url = online
    good = Caller(url)
    for nonsense in ("", "9", "40", "4", "42", '42["frame"', '451-["frame",{"_placeholder":true,"num":0}]',
                     '42["frame",{"seq":1}]', b"\x00\xff", "4" + "[" * 5000, '42["connect"]',
                     '42["disconnect"]'):
        line = simple_websocket.Client(url.replace("http", "ws") + "/socket.io/?EIO=4&transport=websocket")
        # Some of it makes the server hang up, before or after the rest is sent.
        with suppress(simple_websocket.ConnectionClosed, OSError):
            for text in (nonsense, "40", '42["frame",{"seq":1}]'):
                line.send(text)
            line.close()
    assert good.frame(1, jpeg(colour("green")))["classes"][0]["label"] == "green"
    good.io.disconnect()


def test_no_picture_is_written_to_disk_or_to_the_log(
        online: tuple[Live, str], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture) -> None:
    live, url = online
    written: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open":
            name, mode, flags = arguments
            if (flags or 0) & (os.O_WRONLY | os.O_RDWR) and not str(name).startswith("/dev/"):
                written.append(f"{name} {mode}")

    sys.addaudithook(watch)
    with caplog.at_level(logging.DEBUG):
        caller = Caller(url)
        caller.io.emit("configure", {"method": "toy_odd"})
        caller.frame(1, jpeg(colour("red")), keep=True)
        caller.frame(2, jpeg(colour("red"))[:-50])
        caller.frame(3, jpeg(colour("blue")), model="toy-broken")
        caller.io.emit("explain", {"id": 1, "seq": 1, "method": "toy_failing"})
        caller.one("error", id=1)
        caller.io.emit("frame", {"seq": 4, "jpeg": jpeg(colour("red"))})
        for n in range(5, 10):                  # pages that go with a picture still on the wire
            leaves = Caller(url)
            leaves.io.emit("frame", {"seq": n, "jpeg": jpeg(colour("red"))})
            leaves.io.disconnect()
        caller.io.disconnect()
        until(lambda: not live.sessions, "the server to notice")
        time.sleep(0.2)                         # what was left is read by now, if anybody reads it
    watching = False
    assert written == []
    out, err = capfd.readouterr()
    server = "".join(r.getMessage() for r in caplog.records
                     if not r.name.startswith(("socketio.client", "engineio.client")))
    for text in (server, out, err):
        assert "JFIF" not in text and "\\xff\\xd8" not in text and "Bad request" not in text


def test_a_server_that_closes_says_goodbye_and_every_thread_ends(online: tuple[Live, str]) -> None:
    live, url = online
    caller = Caller(url)
    live.close()
    assert "connects again by itself" in caller.one("server_closing")["message"]
    assert not engine_of(live)._scheduler._thread.is_alive()
    caller.io.disconnect()


def test_every_page_carries_the_headers(online: tuple[Live, str]) -> None:
    live, url = online
    port = urlsplit(url).port
    for path in ("/", "/not-there"):
        reply = asked(url, path)
        parts = reply.getheader("Content-Security-Policy", "").split("; ")
        policy = dict(part.split(" ", 1) for part in parts)
        assert policy["default-src"] == policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["connect-src"].startswith(f"'self' ws://localhost:{port} ws://127.0.0.1:{port}")
        assert policy["img-src"] == "'self' blob: data:" and policy["object-src"] == "'none'"
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert "unsafe" not in str(policy) and "*" not in str(policy)
        assert reply.getheader("X-Content-Type-Options") == "nosniff"
        assert reply.getheader("Referrer-Policy") == "no-referrer"
        assert reply.getheader("X-Frame-Options") == "DENY"
        assert reply.getheader("Permissions-Policy", "").startswith("camera=(self)")
        assert reply.getheader("Cache-Control") == "no-cache"


def test_an_unchanged_page_is_not_sent_again(online: tuple[Live, str]) -> None:
    _, url = online
    first = asked(url, "/")
    again = asked(url, "/", **{"If-None-Match": first.getheader("ETag", "")})
    assert (first.status, again.status, again.read()) == (200, 304, b"")


def test_added_origins_are_allowed_and_named_in_the_policy() -> None:
    settings = Settings(host="0.0.0.0", port=4242, origins=("https://class.example",))
    assert settings.allowed_origins == ["http://localhost:4242", "http://127.0.0.1:4242", "http://[::1]:4242",
                                        "https://class.example"]
    assert "wss://class.example" in content_policy(settings)
    assert "http://lab:4200" in Settings(host="lab").allowed_origins


def test_threads_that_speak_to_one_client_do_not_mix_their_packets(
        online: tuple[Live, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte of a map arrives as it was sent, whoever else speaks in the middle of it."""
    live, url = online
    caller, eio = Caller(url), live._io.server.eio
    client = next(iter(live.sessions))
    noise = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8).tobytes()
    send = eio.send_packet

    def slowly(*packet: Any) -> None:
        send(*packet)
        time.sleep(0.002)

    monkeypatch.setattr(eio, "send_packet", slowly)

    def speak(start: int) -> None:
        for n in range(start, start + 15):
            live.send(client, "explanation", {"id": n, "heat": noise, "maps": {"a": {"heat": noise[::-1]}}})

    threads = [threading.Thread(target=speak, args=(start,)) for start in (0, 100)]
    for t in threads:
        t.start()
    for _ in range(15):
        caller.io.call("stop", {"id": "nothing"}, timeout=10)         # acknowledged in between
    for t in threads:
        t.join(30)
    for n in (*range(15), *range(100, 115)):
        said = caller.one("explanation", id=n)
        assert said["heat"] == noise and said["maps"]["a"]["heat"] == noise[::-1]
    caller.io.disconnect()


def test_what_we_rely_on_inside_the_socket_libraries_is_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wire.relied_on() == [], "each of these is to be looked into before another version is taken"
    monkeypatch.setitem(wire.READ, "werkzeug", "2.0")
    (said,) = wire.relied_on()
    assert "werkzeug" in said and "2.0 was read" in said and "serving/wire.py" in said
    monkeypatch.undo()
    monkeypatch.delattr(engineio_server(), "sockets", raising=False)
    monkeypatch.setattr(socketio.Server, "__init__", _without_sockets(socketio.Server.__init__))
    (said,) = wire.relied_on()
    assert "the server knows its sockets" in said and "mend serving/wire.py" in said


def engineio_server() -> type:
    return type(socketio.Server(async_mode="threading").eio)


def _without_sockets(init: Any) -> Any:
    def made(self: Any, *arguments: Any, **named: Any) -> None:
        init(self, *arguments, **named)
        del self.eio.sockets

    return made
