"""A WebSocket by hand, for what no client library would send; and what a process takes of the machine."""
from __future__ import annotations

import os
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

TEXT, BINARY, MORE = 1, 2, 0
PATH = "/socket.io/?EIO=4&transport=websocket"


class Raw:
    """One connection: frames are masked with zeros, so that what is given is what travels."""

    def __init__(self, url: str, join: bool = True, **headers: str):
        where = urlsplit(url)
        self.tcp = socket.create_connection((where.hostname, where.port), timeout=10)
        lines = {"Host": where.netloc, "Upgrade": "websocket", "Connection": "Upgrade",
                 "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                 **{name.replace("_", "-"): value for name, value in headers.items()}}
        self.tcp.sendall((f"GET {PATH} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items())
                          + "\r\n").encode("latin-1"))
        self.answer = b""
        while b"\r\n\r\n" not in self.answer and (got := self.tcp.recv(4096)):
            self.answer += got
        self.heard = self.answer.partition(b"\r\n\r\n")[2]
        if join:
            self.text("40")
            self.until(b'42["ready"')

    def text(self, text: str | bytes) -> None:
        self.frame(text.encode() if isinstance(text, str) else text, TEXT)

    def frame(self, data: bytes, kind: int = BINARY, last: bool = True, length: int | None = None) -> None:
        """One WebSocket frame; `length` is what its header says."""
        size = len(data) if length is None else length
        head = bytes([kind | (0x80 if last else 0)])
        head += bytes([0x80 | size]) if size < 126 else \
            bytes([0x80 | 126]) + struct.pack("!H", size) if size < 65536 else \
            bytes([0x80 | 127]) + struct.pack("!Q", size)
        self.tcp.sendall(head + bytes(4) + data)

    def flood(self, data: bytes, seconds: float = 60) -> int:
        """Bytes sent before the server hung up, `seconds` at most."""
        sent, end = 0, time.monotonic() + seconds
        with suppress(OSError):
            while time.monotonic() < end:
                self.tcp.sendall(data)
                sent += len(data)
        return sent

    def until(self, words: bytes, seconds: float = 20) -> bytes:
        """All that was heard up to these words."""
        end = time.monotonic() + seconds
        while words not in self.heard:
            self.tcp.settimeout(max(0.01, end - time.monotonic()))
            got = self.tcp.recv(1 << 16)
            assert got, f"the server hung up before {words!r}; it said {self.heard[-300:]!r}"
            self.heard += got
        return self.heard

    def is_hung_up(self, seconds: float = 20) -> bool:
        """Whether the server ends the connection, waited for; what it still says is heard."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                self.tcp.settimeout(max(0.01, end - time.monotonic()))
                got = self.tcp.recv(1 << 16)
            except TimeoutError:
                return False
            except OSError:                    # reset by the server, or closed here meanwhile
                return True
            if not got:
                return True
            self.heard = (self.heard + got)[-1_000_000:]
        return False

    def close(self) -> None:
        self.tcp.close()


def status(pid: int, field: str) -> int:
    """A number of /proc/PID/status; megabytes for memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            number = int(line.split()[1])
            return number // 1024 if line.endswith("kB") else number
    raise KeyError(field)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


class Memory:
    """How many megabytes a process grew at most since this was made."""

    def __init__(self, pid: int):
        self._pid = pid
        Path(f"/proc/{pid}/clear_refs").write_text("5")    # the peak begins anew
        self._before = status(pid, "VmRSS")

    def growth(self) -> int:
        return status(self._pid, "VmHWM") - self._before
