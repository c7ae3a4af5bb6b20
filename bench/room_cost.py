"""What thirty viewers cost whoever presents: frames a second with them and without, by turns."""
from __future__ import annotations

import json
import multiprocessing
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from threading import Thread
from urllib.parse import urlsplit

import cv2
import websocket

from bench import table
from bench.browser import free_port, photograph
from bench.table import Ratio, Row, at_most
from serving.settings import Settings

VIEWERS = 30
LIMIT = 1.05
UNDER_WAY = 2                        # pictures of the presenter, as its page has them
WINDOW = 1.0                         # seconds of one count
SETTLE = 0.2                         # seconds after viewers came or went
UPGRADE = ("GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
           "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
           "Sec-WebSocket-Key: c2VlIHdoeSwgdGhpcnR5IQ==\r\n\r\n")


def rows(quick: bool = False) -> Iterator[Row]:
    """Pairs of windows for as long as there is time."""
    pairs = 3 if quick else 12
    with unhurried() as address, Presenter(address) as presenter:
        without, beside, ratios = [], [], []
        for pair in range(pairs):
            for watched in (True, False)[::1 if pair % 2 else -1]:
                if watched:
                    with viewers(address, presenter.code) as taken:
                        beside.append(presenter.rate())
                        heard = taken()
                else:
                    without.append(presenter.rate())
            ratios.append(without[-1] / beside[-1])
            if table.left() < 4 * WINDOW and len(ratios) > 2:
                break
    yield at_most(f"presenter's time for a frame, {VIEWERS} viewers / none", Ratio(ratios), LIMIT,
                  f"{_middle(without):.1f} frames/s alone, {_middle(beside):.1f} beside them; the least of "
                  f"{VIEWERS} viewers took {heard / 1e6:.1f} MB/s")


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


class Presenter:
    """Shows a photograph as fast as it is answered, with a live map."""

    def __init__(self, address: str):
        frame = cv2.resize(photograph("cat"), (640, 480), interpolation=cv2.INTER_AREA)
        bgr = frame[..., ::-1]
        self._jpegs = [cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
                       for quality in (78, 80, 82)]
        self.code, self._seq, self._answered, self._sending, self._ready = "", 0, 0, False, False
        self._url = f"{address.replace('http', 'ws', 1)}/socket.io/?EIO=4&transport=websocket"

    def __enter__(self) -> Presenter:
        _until(self._connected)
        Thread(target=self._listen, daemon=True).start()
        self._line.send("40")
        _until(lambda: self._ready)
        self._line.send('42["configure",{"method":"grad_cam"}]')
        self._line.send('42["present",{}]')
        _until(lambda: bool(self.code))
        self._sending = True
        for _ in range(UNDER_WAY):
            self._show()
        _until(lambda: self._answered > 20)
        return self

    def __exit__(self, *_: object) -> None:
        self._sending = False
        self._line.close()

    def rate(self) -> float:
        """Explained frames a second."""
        time.sleep(SETTLE)
        before, start = self._answered, time.perf_counter()
        time.sleep(WINDOW)
        return (self._answered - before) / (time.perf_counter() - start)

    def _connected(self) -> bool:
        with suppress(OSError):                # it is still being started
            self._line = websocket.create_connection(self._url, timeout=60, skip_utf8_validation=True)
            return True
        return False

    def _listen(self) -> None:
        with suppress(OSError, websocket.WebSocketException):
            while True:
                text = self._line.recv()
                if isinstance(text, str):
                    self._heard(text)

    def _heard(self, text: str) -> None:
        event = text[:40].partition('["')[2].partition('"')[0]
        if text == "2":                        # a sign of life is asked for
            self._line.send("3")
        elif event == "room":
            self.code = json.loads(text[2:])[1]["code"]
        elif event == "ready":
            self._ready = bool(json.loads(text[2:])[1]["labels"])
        elif event in ("result", "dropped") and self._sending:
            self._show()
        self._answered += event == "explanation"

    def _show(self) -> None:
        self._seq += 1
        self._line.send(f'451-["frame",{{"seq":{self._seq},"jpeg":{{"_placeholder":true,"num":0}}}}]')
        self._line.send_binary(self._jpegs[self._seq % len(self._jpegs)])


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        if time.monotonic() > end:
            raise TimeoutError("the server did not answer within a minute")
        time.sleep(0.01)


@contextmanager
def unhurried() -> Iterator[str]:
    """The real server in a process of its own, without its bound on pictures a second."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(port,), daemon=True)
    process.start()
    try:
        yield f"http://localhost:{port}"
    finally:
        process.terminate()
        process.join(30)


def _serve(port: int) -> None:
    from app import create_app
    from serving.http import Server

    settings = Settings(port=port, frames_a_second=10_000)
    Server(settings, create_app(settings)).serve_forever()


@contextmanager
def viewers(address: str, code: str) -> Iterator[Callable[[], float]]:
    """So many viewers in a process of their own, who read all; `taken()` is what the least of them took."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_watch, args=(address, code, there))
    process.start()
    try:
        here.recv()
        yield lambda: _asked(here)
    finally:
        process.terminate()
        process.join(10)


def _asked(line: Connection) -> float:
    line.send(None)
    return float(line.recv())


def _watch(address: str, code: str, line: Connection) -> None:
    where = urlsplit(address)
    waiting, taken, start = selectors.DefaultSelector(), {}, time.perf_counter()
    for _ in range(VIEWERS):
        tcp = socket.create_connection((where.hostname, where.port), timeout=10)
        tcp.sendall(UPGRADE.format(host=where.netloc).encode())
        tcp.recv(1024)                         # it is a WebSocket from here on
        tcp.sendall(_framed("40") + _framed(f'42["join",{{"code":"{code}"}}]'))
        waiting.register(tcp, selectors.EVENT_READ)
        taken[tcp] = 0
    waiting.register(line, selectors.EVENT_READ)
    buffer, joined = bytearray(1 << 18), set()
    while True:
        for key, _ in waiting.select():
            if key.fileobj is line:
                line.recv()
                line.send(min(taken.values()) / (time.perf_counter() - start))
                continue
            viewer = key.fileobj
            assert isinstance(viewer, socket.socket)
            count = viewer.recv_into(buffer)
            taken[viewer] += count
            if viewer not in joined and b'"joined"' in buffer[:count]:
                joined.add(viewer)
                if len(joined) == VIEWERS:
                    line.send("all are in")
                    taken, start = dict.fromkeys(taken, 0), time.perf_counter()


def _framed(text: str) -> bytes:
    """A short text in a client's frame; a mask of zeros leaves it as it is."""
    return bytes((0x81, 0x80 | len(text))) + bytes(4) + text.encode()
