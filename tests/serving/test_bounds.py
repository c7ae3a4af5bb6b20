"""What a client may take, over real sockets: time, places, memory, words in the log; and who may ask."""
from __future__ import annotations

import errno
import gc
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from raw import Raw
from served import put_online
from stand_in import Client, colour, jpeg, png, until
from test_events import HOLE
from test_wire import UPGRADE, Caller, asked

from serving import websocket
from serving.events import Live
from serving.http import Server
from serving.limits import Bucket, Calm, one_line
from serving.packets import Bad, Packet, Unfit
from serving.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
Online = tuple[Live, str]


@pytest.fixture
def hasty(toys: None) -> Iterator[Online]:
    """A server that waits for nobody, and has few places."""
    yield from put_online(handshake=0.5, silence=0.5, clients=2, connections=20, per_address=12)


def listening(live: Live) -> Server:
    found: Server = live.app.extensions["http"]
    return found


def opened(url: str) -> socket.socket:
    where = urlsplit(url)
    return socket.create_connection((where.hostname, where.port), timeout=20)


def ends(line: socket.socket) -> bool:
    """Whether the other side hangs up, waited for."""
    with suppress(ConnectionError):
        while line.recv(4096):
            pass
    return True


# -- HTTP


def test_connections_are_few_and_those_that_say_nothing_end(hasty: Online) -> None:
    live, url = hasty
    lines = [opened(url) for _ in range(100)]
    lines[0].sendall(b"GET / HTTP/1.1\r\nHost:")
    assert listening(live).connections() <= 12
    assert all(ends(line) for line in lines)
    until(lambda: listening(live).connections() == 0, "all places to be free")
    assert asked(url, "/").status == 200


def test_a_request_that_drips_in_is_not_waited_for(hasty: Online) -> None:
    live, url = hasty
    line, sent = opened(url), 0
    line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
    with suppress(OSError):                    # each byte comes well before any time-out between two of them
        while sent < 400:
            line.sendall(b"x")
            sent += 1
            time.sleep(0.05)
    assert sent < 400
    until(lambda: listening(live).connections() == 0, "the place to be free")


def test_a_body_that_no_page_takes_is_not_read(hasty: Online) -> None:
    line = opened(hasty[1])
    line.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000000\r\n\r\n")
    sent = 0
    with suppress(OSError):
        while sent < 200:
            line.sendall(bytes(1_000_000))
            sent += 1
    assert sent < 200


def test_who_is_one_too_many_is_told_so(hasty: Online) -> None:
    lines = [opened(hasty[1]) for _ in range(12)]
    until(lambda: listening(hasty[0]).connections() == 12, "all to be there")
    reply = asked(hasty[1], "/")
    assert reply.status == 503 and b"from your address" in reply.read()
    for line in lines:
        line.close()


def test_without_descriptors_the_server_pauses_and_goes_on(
        hasty: Online, monkeypatch: pytest.MonkeyPatch) -> None:
    live, url = hasty
    server, tries = listening(live), []

    class Exhausted:
        def accept(self) -> Any:
            tries.append(1)
            raise OSError(errno.EMFILE, "Too many open files")

        def __getattr__(self, name: str) -> Any:
            return getattr(listener, name)

    listener = server.socket
    monkeypatch.setattr(server, "socket", Exhausted())
    line = opened(url)
    time.sleep(1)
    assert 1 <= len(tries) <= 20, "it does not spin"
    monkeypatch.undo()
    line.close()
    assert asked(url, "/").status == 200


@pytest.mark.parametrize("host, passes", [
    ("localhost", True), ("127.0.0.1:4200", True), ("LOCALHOST:1", True), ("[::1]:4200", True),
    ("evil.example", False), ("localhost.evil.example", False), ("[::2]", False), ("", False),
    ("127.0.0.1.nip.io", False), ("local\x1bhost", False)], ids=range(10))
def test_foreign_names_are_refused_everywhere(online: Online, host: str, passes: bool) -> None:
    for path, headers in (("/", {}), ("/socket.io/?EIO=4&transport=websocket", UPGRADE)):
        reply = asked(online[1], path, Host=host, **headers)
        assert (reply.status in (200, 101)) is passes
        assert reply.status == 101 or reply.getheader("X-Frame-Options") == "DENY"


def test_names_that_were_added_pass(toys: None) -> None:
    settings = Settings(host="lab", origins=("https://class.example",), hosts=("Box.local",))
    assert settings.allowed_hosts >= {"lab", "class.example", "box.local", "localhost", "127.0.0.1", "::1"}


def test_answers_of_the_socket_have_the_headers_too(online: Online) -> None:
    for path in ("/socket.io/?EIO=4&transport=polling", "/socket.io/", "/socket.io/?EIO=4&sid=x"):
        reply = asked(online[1], path)
        assert reply.status == 400 and reply.getheader("X-Content-Type-Options") == "nosniff"
        assert "default-src 'self'" in reply.getheader("Content-Security-Policy", "")


@pytest.mark.parametrize("what", [{"Origin": "http://\x1b]0;owned\x07"}, {"Host": "\x1b[2J"}],
                         ids=["origin", "host"])
def test_what_a_terminal_would_obey_does_not_reach_the_log(
        online: Online, what: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(50):
        assert Raw(online[1], join=False, **what).answer.startswith(b"HTTP/1.1 400")
    said = [r.getMessage() for r in caplog.records if r.name == "seewhy"]
    assert 1 <= len(said) <= 5 and "\\x1b" in said[0] and "\x1b" not in "".join(said)


# -- places


def test_the_page_that_is_one_too_many_is_told_and_hung_up_on(hasty: Online) -> None:
    live, url = hasty
    two = [Raw(url), Raw(url)]
    third = Raw(url, join=False)
    third.text("40")
    assert third.is_hung_up() and b'"busy"' in third.heard
    assert len(live.sessions) == 2 and two[0].until(b"ready")
    for line in two:
        line.close()
    until(lambda: not live.sessions and not live._io.server.eio.sockets, "all to be gone")


def test_who_does_not_join_is_hung_up_on(hasty: Online) -> None:
    live, url = hasty
    idle, chatty = Raw(url, join=False), Raw(url, join=False)
    threading.Thread(target=lambda: chatty.flood(b"\x89\x80" + bytes(4), 5), daemon=True).start()
    assert idle.is_hung_up()
    until(lambda: not live._io.server.eio.sockets, "both to be gone")


def test_who_only_pings_is_hung_up_on(online: Online) -> None:
    line = Raw(online[1])
    threading.Thread(target=line.is_hung_up, daemon=True).start()
    assert line.flood((b"\x89\x80" + bytes(4)) * 1000, 30) < 30_000_000
    until(lambda: not online[0].sessions, "it to be gone")


def test_who_is_silent_is_asked_and_then_gone(hasty: Online) -> None:
    """A half-open connection: nothing comes from it, and nobody said goodbye."""
    live, url = hasty
    eio = live._io.server.eio
    eio.ping_interval, eio.ping_timeout = 0.3, 0.3
    before, silent = threading.active_count(), Raw(url)
    silent.until(b"\x81\x012")                 # the ping, which it does not answer
    assert silent.is_hung_up()
    until(lambda: not live.sessions and not eio.sockets, "it to be forgotten")
    until(lambda: threading.active_count() <= before, "its threads to end")


def test_who_answers_pings_stays(hasty: Online) -> None:
    live, url = hasty
    eio, caller = live._io.server.eio, Caller(url)
    eio.ping_interval, eio.ping_timeout = 0.2, 0.2
    time.sleep(2)
    assert caller.io.connected and caller.frame(1, jpeg(colour("red")))["classes"]
    caller.io.disconnect()


def test_who_reads_nothing_is_hung_up_on(hasty: Online) -> None:
    live, url = hasty
    Raw(url)
    client = next(iter(live.sessions))
    noise = bytes(1_000_000)
    for n in range(200):
        live.send(client, "explanation", {"id": n, "heat": noise})
    lines = list(live._io.server.eio.sockets.values())
    assert sum(line.queue.bytes for line in lines) <= websocket.OUTGOING + len(noise)
    until(lambda: not live.sessions, "it to be gone")


def test_who_reads_slowly_but_reads_stays(hasty: Online) -> None:
    live, url = hasty
    line = Raw(url)
    client = next(iter(live.sessions))
    for n in range(12):
        live.send(client, "explanation", {"id": n, "heat": bytes(600_000)})
    got, end = 0, time.monotonic() + 15
    while got < 7_200_000 and time.monotonic() < end:
        got += len(line.tcp.recv(100_000))
        time.sleep(0.01)
    assert got >= 7_200_000 and live.sessions
    line.close()


# -- messages


@pytest.mark.parametrize("text, code, words", [
    ('42["explain",{"id":"a","seq":' + "9" * 10_000 + "}]", "bad_input", "64 bits"),
    ('42["explain",{"id":"a","seq":9223372036854775808}]', "bad_input", "64 bits"),
    ('42["explain",{"id":"a","seq":1,"params":{"x":1e999}}]', "bad_input", "finite"),
    ('42["explain",{"id":"a","seq":1,"params":{"x":NaN}}]', "bad_input", "finite"),
    ('42["explain",{"id":"a","seq":1,"target":"\\ud800"}]', "bad_input", "surrogate"),
    ('42["explain",{"id":"a","\\udfff":1}]', "bad_input", "surrogate"),
    ('42["explain",{"id":"a","params":' + "[" * 20 + "]" * 20 + "}]", "bad_input", "deep"),
    ('42["explain",{"id":"a","params":[' + "0," * 6000 + "0]}]", "bad_input", "values"),
    ('42["explain",{"id":"a","method":"' + "x" * 60_000 + '"}]', "bad_input", ""),
    ('42["explain",{"id":"a","seq":"' + "x" * 60_000 + '"}]', "gone", ""),
    ('42["explain",{"id":"a","params":{"' + "x" * 60_000 + '":1}}]', "bad_input", ""),
    ('42["configure",{"id":"a","settings":{"sharpness":"' + "x" * 60_000 + '"}}]', "bad_input", ""),
], ids=range(12))
def test_values_that_cannot_be_taken_are_answered_shortly(online: Online, text: str, code: str,
                                                          words: str) -> None:
    line = Raw(online[1])
    line.heard = b""
    line.text(text)
    said = line.until(b"]")
    while b'"message":"' not in said:          # `ready` for the model that has come
        line.heard = said.partition(b'42["ready"')[2].partition(b"}]")[2]
        said = line.until(b"]")
    assert b'"error"' in said and f'"code":"{code}"'.encode() in said and words.encode() in said
    assert b'"id":"a"' in said and said.count(b"x") < 2000
    line.text('42["stop",{}]')
    line.text('42["explain",{"id":"b"}]')
    line.until(b'"id":"b"')                    # it stays connected
    line.close()


def test_a_frame_whose_number_is_too_long_to_read_gets_its_credit_back(online: Online) -> None:
    line = Raw(online[1])
    line.text('451-["frame",{"seq":5,"jpeg":{"_placeholder":true,"num":0},"threshold":' + "1" * 200 + "}]")
    assert b'"seq":5' in line.until(b"64 bits")
    line.close()


def test_more_than_anybody_needs_is_refused_in_words_and_then_ended(toys: None) -> None:
    for live, url in put_online(frames_a_second=5, requests_a_second=5):
        caller, data = Caller(url), jpeg(colour("red"))
        for seq in range(1, 101):
            caller.io.emit("frame", {"seq": seq, "jpeg": data})
        said = caller.one("error", seq=100)
        assert said["code"] == "too_fast" and "at most 5 pictures" in said["message"]
        answered = {d["seq"] for d in caller.all("result", "error", "dropped") if "seq" in d}
        assert answered == set(range(1, 101))
        for n in range(1, 60):
            caller.io.emit("explain", {"id": n, "seq": 1})
        said = caller.one("error", id=59)
        assert said["code"] == "too_fast" and "at most 5 requests" in said["message"]
        with suppress(Exception):
            for seq in range(1000):
                caller.io.emit("frame", {"seq": seq, "jpeg": data})
        until(lambda caller=caller: not caller.io.connected, "the end")  # type: ignore[misc]
        until(lambda live=live: not live.sessions, "its place to be free")  # type: ignore[misc]


# -- pictures


def noise(seed: int) -> bytes:
    return jpeg(np.random.default_rng(seed).integers(0, 256, (240, 320, 3), np.uint8))


def test_kept_pictures_of_all_clients_have_one_bound(toys: None) -> None:
    for live, url in put_online(kept_mb=1):
        one, other = Caller(url), Caller(url)
        size = len(noise(0))
        for seq in range(1, 9):
            one.frame(seq, noise(seq), keep=True)
        for seq in range(1, 9):
            other.frame(seq, noise(seq + 100), keep=True)
        assert live.pictures.bytes <= 1_000_000 < 16 * size
        one.io.emit("explain", {"id": "old", "seq": 1, "method": "saliency"})
        said = one.one("error", id="old")
        assert said["code"] == "gone" and "no longer kept" in said["message"]
        other.io.emit("explain", {"id": "new", "seq": 8, "method": "saliency"})
        assert other.one("explanation", id="new")["done"]
        for caller in (one, other):
            caller.io.disconnect()
        until(lambda live=live: live.pictures.bytes == 0, "all to be forgotten")  # type: ignore[misc]


def test_what_is_erased_counts_too_and_a_picture_in_use_stays(live: Live) -> None:
    client = Client(live).here()
    client.frame(colour("red"), seq=1, keep=True)
    before = live.pictures.bytes
    client.emit("edit", {"id": "e", "seq": 1, "mask": png(HOLE), "fill": "telea"})
    client.one("result", id="e")
    assert live.pictures.bytes == before + len(png(HOLE))
    client.emit("edit", {"id": "f", "seq": 1, "mask": b""})
    client.one("result", id="f")
    assert live.pictures.bytes == before
    client.leave()
    gc.collect()
    assert live.pictures.bytes == 0


# -- in themselves


def test_a_bucket_gives_what_was_saved_and_then_its_rate() -> None:
    now = [0.0]
    bucket = Bucket(10, 3, lambda: now[0])
    assert [bucket.take() for _ in range(5)] == [True] * 3 + [False] * 2
    now[0] = 0.25
    assert [bucket.take() for _ in range(4)] == [True] * 2 + [False] * 2
    now[0] = 100
    assert [bucket.borrow() for _ in range(5)] == [0, 0, 0, pytest.approx(0.1), pytest.approx(0.2)]


def test_alike_lines_are_logged_a_few_times_and_counted() -> None:
    now = [0.0]
    calm = Calm(lambda: now[0])

    def said(text: str, line: int = 1) -> str | None:
        record = logging.LogRecord("seewhy", logging.ERROR, "x.py", line, text, (), None)
        return record.getMessage() if calm.filter(record) else None

    assert [said(f"bad {n}") is not None for n in range(8)] == [True] * 5 + [False] * 3
    assert said("another", 2) == "another"
    now[0] = 11
    assert said("bad again") == "bad again (3 more like it were not logged)"
    assert one_line("a\x1b[2J\nb") == "a\\x1b[2J\\nb" and len(one_line("y" * 10_000)) < 600


@pytest.mark.parametrize("text", [
    "", "7", "x", "3", "4{}", "2", "2{}", "2[]", "2[1]", '2["connect"]', '2["x"', "0[1]", '1{"a":1}',
    '21-["frame"]', '5["frame"]', '52["frame"]', '2/other,["frame"]', "5" * 300, "²", '2["\ud800"'],
    ids=range(20))
def test_packets_that_nobody_sends(text: str) -> None:
    with pytest.raises(Bad) as problem:
        Packet(encoded_packet=text or "8")
    assert not isinstance(problem.value, Unfit)


def test_packets_that_are_sent() -> None:
    packet = Packet(encoded_packet='51-["frame",{"seq":1,"jpeg":{"_placeholder":true,"num":0}}]')
    assert packet.attachment_count == 1 and packet.add_attachment(b"x")
    assert packet.data == ["frame", {"seq": 1, "jpeg": b"x"}]
    packet = Packet(encoded_packet='212["stop",{"id":"größe"}]')
    assert (packet.packet_type, packet.id, packet.data) == (2, 12, ["stop", {"id": "größe"}])
    assert Packet(encoded_packet='0{"token":"t"}').data == {"token": "t"}
    assert Packet(encoded_packet="0/other,").namespace == "/other"
    assert Packet(encoded_packet="1").packet_type == 1
