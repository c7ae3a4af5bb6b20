"""Whoever comes before the libraries are here is told so, waits, and is served."""
from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import socketio
from flask import Flask
from stand_in import until
from werkzeug.serving import make_server

from serving.door import Door
from serving.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture
def closed(toys: None) -> Iterator[tuple[Door, str]]:
    """A server whose door nobody has opened yet, and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = Flask("seewhy-test")
    app.add_url_rule("/", view_func=lambda: "<!doctype html>")
    door = Door(app, Settings(port=port))
    server = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield door, f"http://127.0.0.1:{port}"
    door.close()
    server.shutdown()
    thread.join(5)


def test_an_early_visitor_is_told_what_it_waits_for_and_then_served(closed: tuple[Door, str]) -> None:
    door, url = closed
    heard: list[tuple[str, dict[str, Any]]] = []
    io = socketio.Client(reconnection=False)
    io.on("*", lambda event, data: heard.append((event, data)))
    io.connect(url, transports=["websocket"])
    until(lambda: heard, "a word of what is going on")
    event, said = heard[0]
    assert event == "progress" and said["what"] == "load" and "PyTorch" in said["text"]
    assert not [e for e, _ in heard if e == "ready"]
    door.open()
    until(lambda: [d for e, d in heard if e == "ready" and d["labels"]], "the first model")
    io.disconnect()
