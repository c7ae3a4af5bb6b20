"""Servers in processes of their own, ended by their number."""
from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import socketio
from stand_in import until
from test_wire import Caller, asked

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


class Visitor(Caller):
    """A client with headers of its own, who need not find a model."""

    def __init__(self, url: str, wait: bool = True, **headers: str):
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.io = socketio.Client(reconnection=False, ssl_verify=False)
        self.io.on("*", lambda event, data: self.heard.append((event, data)))
        self.io.connect(url, headers=headers, transports=["websocket"])
        if wait:
            until(lambda: any(r["labels"] for r in self.all("ready")), "the first model", 30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(command: list[Any], port: int, log: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A server that answers on that port; all that it says is in the log."""
    with log.open("w") as out:
        process = subprocess.Popen(
            [str(word) for word in command], stdout=out, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}", "PYTHONUNBUFFERED": "1", **environment})
    try:
        until(lambda: process.poll() is not None or _answers(port), "the server to answer", 60)
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def whole(log: Path, *words: Any, wanted: dict[str, Any] | None = None,
          **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The application with toy models, and its address."""
    port = free_port()
    command = [sys.executable, HERE / "whole.py", json.dumps(wanted or {}), "--port", port, *words]
    with started(command, port, log, **environment) as process:
        yield process, f"http://127.0.0.1:{port}"


def _answers(port: int) -> bool:
    try:
        return asked(f"http://127.0.0.1:{port}", "/health/live").status in (200, 308)
    except OSError:
        return False
