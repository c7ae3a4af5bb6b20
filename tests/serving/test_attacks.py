"""What was found to break the server over real sockets, each against a server in a process of its own."""
from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from raw import BINARY, MORE, TEXT, Memory, Raw, descriptors, status
from stand_in import colour, jpeg, until
from test_wire import Caller, asked

MOST = 20                                      # megabytes that an attack may cost
HERE = Path(__file__).parent
CHUNK = bytes(1 << 20)


@dataclass
class Target:
    url: str
    pid: int
    log: Path

    def clients(self) -> int:
        return int(asked(self.url, "/clients").read())


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    log = tmp_path_factory.mktemp("target") / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, HERE / "target.py", json.dumps({"silence": 1.0})], stdout=subprocess.PIPE,
            stderr=out, text=True, env={**os.environ, "PYTHONPATH": f"{HERE.parent.parent}:{HERE}"})
        assert process.stdout
        url = process.stdout.readline().strip()
        assert url, log.read_text()
        caller = Caller(url)                   # what is needed once is there before anything is measured
        assert caller.frame(1, jpeg(colour("red")))["classes"]
        caller.frame(2, jpeg(colour("red"), 100) + bytes(2_000_000))
        caller.io.disconnect()
        yield Target(url, process.pid, log)
        process.kill()
        process.wait()


@pytest.fixture(autouse=True)
def unhurt(target: Target, record_property: Callable[[str, object], None]) -> Iterator[None]:
    """Whatever was done: others are served, and nothing of it stays."""
    until(lambda: target.clients() == 0, "those before to be gone")
    good = Caller(target.url)
    threads, open_files = status(target.pid, "Threads"), descriptors(target.pid)
    memory = Memory(target.pid)
    yield
    record_property("measured", f"{memory.growth()} MB more at most")
    assert good.frame(77, jpeg(colour("green")))["classes"][0]["label"] == "green"
    until(lambda: target.clients() == 1, "the attackers to be gone", 20)
    until(lambda: status(target.pid, "Threads") <= threads + 2, "their threads to end", 20)
    until(lambda: descriptors(target.pid) <= open_files + 2, "their descriptors to be closed", 20)
    good.io.disconnect()


def insist(times: int, say: Callable[[], None]) -> None:
    """Say it again and again, until the other side has hung up."""
    with suppress(OSError):
        for _ in range(times):
            say()


@pytest.mark.parametrize("join", [True, False], ids=["joined", "not joined"])
@pytest.mark.parametrize("kind", [TEXT, BINARY], ids=["text", "binary"])
def test_a_message_of_200_megabytes_costs_nothing(target: Target, join: bool, kind: int) -> None:
    memory, line = Memory(target.pid), Raw(target.url, join)
    line.frame(b"", kind, length=200_000_000)
    assert line.flood(CHUNK) < 50_000_000, "it is hung up on long before the end"
    assert memory.growth() < MOST


@pytest.mark.parametrize("size", [0, 1, 1000, 100_000])
def test_endless_fragments_cost_nothing(target: Target, size: int) -> None:
    memory, line = Memory(target.pid), Raw(target.url)
    line.frame(b"x", BINARY, last=False)
    pieces = Raw.__new__(Raw)                  # many frames sent at once
    pieces.tcp = Collected()                   # type: ignore[assignment]
    for _ in range(max(1, 1_000_000 // (size + 10))):
        pieces.frame(bytes(size), MORE, last=False)
    assert line.flood(bytes(pieces.tcp.data)) < 100_000_000  # type: ignore[attr-defined]
    assert memory.growth() < MOST


class Collected:
    def __init__(self) -> None:
        self.data = bytearray()

    def sendall(self, data: bytes) -> None:
        self.data += data


@pytest.mark.parametrize("announced", [
    '45999999999-["frame",{"seq":1}]', '459-["frame",{"jpeg":{"_placeholder":true,"num":0}}]',
    '450-["frame",{"seq":1}]', '451-["frame",{"jpeg":{"_placeholder":true,"num":7}}]',
    '451-["frame",[' + ",".join(['{"_placeholder":true,"num":0}'] * 500) + "]]"], ids=range(5))
def test_attachments_that_were_forged_are_not_collected(target: Target, announced: str) -> None:
    memory, line = Memory(target.pid), Raw(target.url)
    line.text(announced)
    insist(100, lambda: line.frame(CHUNK))
    assert line.is_hung_up()
    assert memory.growth() < MOST


@pytest.mark.parametrize("text", [
    '42["configure",{"params":' + "[" * 30_000 + "]" * 30_000 + "}]",
    '42["configure",{"params":[' + "[]," * 20_000 + "[]]}]",
    '42["configure",{"params":' + '{"a":' * 10_000 + "1" + "}" * 10_000 + "}]",
    "4" + "[" * 60_000], ids=["lists", "many", "objects", "bare"])
def test_deep_json_is_a_sentence_or_nonsense(target: Target, text: str) -> None:
    memory, line = Memory(target.pid), Raw(target.url)
    insist(10, lambda: line.text(text))
    assert line.is_hung_up() and memory.growth() < MOST


def test_a_long_text_is_not_read(target: Target) -> None:
    memory, line = Memory(target.pid), Raw(target.url)
    line.flood(b"\x81\xff" + (20_000_000).to_bytes(8, "big") + bytes(4)
               + b'42["configure",{"params":[' + b"[]," * 6_000_000)
    assert line.is_hung_up() and memory.growth() < MOST


def test_frames_as_fast_as_they_go_do_not_pile_up(target: Target) -> None:
    """The sender is held back by TCP, and then hung up on."""
    memory, line = Memory(target.pid), Raw(target.url)
    reading = threading.Thread(target=line.is_hung_up, daemon=True)
    reading.start()
    picture = jpeg(colour("red")) + bytes(270_000)
    both = Collected()
    one = Raw.__new__(Raw)
    one.tcp = both                             # type: ignore[assignment]
    one.text('451-["frame",{"seq":1,"jpeg":{"_placeholder":true,"num":0}}]')
    one.frame(picture)
    line.flood(bytes(both.data), 4)
    line.tcp.close()
    assert memory.growth() < MOST


def test_oversized_messages_leave_nothing_behind(target: Target) -> None:
    """Threads and descriptors are counted when the test is over, by `unhurt`."""
    memory = Memory(target.pid)
    for _ in range(20):
        line = Raw(target.url)
        line.frame(b"", length=21_500_000)
        line.flood(CHUNK)
    assert memory.growth() < MOST


def test_who_never_reads_is_hung_up_on(target: Target) -> None:
    memory, line = Memory(target.pid), Raw(target.url)
    until(lambda: line.flood(b"\x81\x94" + bytes(4) + b'42["configure",{}]  ', 0.2) == 0
          or target.clients() == 1, "the server to hang up")
    assert memory.growth() < MOST + 10, "8 MB may wait to be read, and the same again be on its way"


NONSENSE = ("", "3x", "4", "4x", "4²", "40", "41", "42", "43", "44", "45", "46", "4[", "42[]", '42["frame"',
            "42{}", '42["connect"]', '42["disconnect"]', "6", "9", "b4", "451-", '431["x"]', "\x1b[31m", "²",
            "40/other,", '42/x,["frame",{}]', "42" + "9" * 200, '42["stop",{"id":"\\ud800"}]')


def test_two_thousand_malformed_packets_are_a_few_lines_in_the_log(target: Target) -> None:
    dice, before = random.Random(7), target.log.stat().st_size
    sent = 0
    while sent < 2_000:
        line = Raw(target.url, join=dice.random() < 0.3)
        try:
            for _ in range(50):
                text = dice.choice(NONSENSE)
                if dice.random() < 0.3:
                    text = "".join(chr(ord(c) ^ dice.randrange(2)) for c in text) + dice.choice("\x1b\n[{²")
                if dice.random() < 0.1:
                    line.frame(dice.randbytes(20))
                line.text(text)
                sent += 1
        except OSError:
            pass
        line.close()
    said = target.log.read_text()[before:]
    assert len(said) < 20_000 and "Traceback" not in said and "\x1b" not in said


@pytest.mark.parametrize("text", ["", "4x", "9", "41", "40", "b4", "450-[]"])
def test_nonsense_keeps_no_place(target: Target, text: str) -> None:
    """No packet costs a second place, and who goes on is hung up on; `unhurt` counts who is left."""
    line = Raw(target.url)
    insist(30, lambda: line.text(text))
    assert line.is_hung_up()
    assert b"HTTP/1.1 500" not in line.heard
