"""An app of its own for a test, with a network or without one."""
from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

from flask import Flask

from serving.access import protect
from serving.events import Live, attach
from serving.http import Server
from serving.settings import Settings


def served(settings: Settings) -> Iterator[Live]:
    """A server on an app of its own, closed afterwards."""
    app = Flask("seewhy-test")
    protect(app, settings)
    attach(app, settings)
    app.add_url_rule("/", view_func=lambda: "<!doctype html>")
    server: Live = app.extensions["live"]
    yield server
    server.close()


def put_online(**settings: Any) -> Iterator[tuple[Live, str]]:
    """The same with other settings; app.extensions["http"] is what listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for server in served(Settings(port=port, **settings)):
        http = server.app.extensions["http"] = Server(server.settings, server.app)
        thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server, f"http://127.0.0.1:{port}"
        http.shutdown()
        thread.join(5)
