"""A server in a process of its own, with the toy models: `target.py '{"silence": 1}'` prints its address."""
from __future__ import annotations

import json
import socket
import sys

import toy_room
from flask import Flask

import models
from serving.access import protect
from serving.events import attach
from serving.http import Server
from serving.settings import Settings


def main() -> None:
    setattr(models, "ROOMS", ("toy_room",))    # noqa: B010  (as monkeypatch does it elsewhere)
    setattr(models, "default", {"classify": "toy", "detect": "toy-boxes"}.get)  # noqa: B010
    toy_room.GATE.set()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = Settings(port=port, **json.loads(sys.argv[1]))
    app = Flask("seewhy-test")
    protect(app, settings)
    attach(app, settings)
    app.add_url_rule("/clients", view_func=lambda: str(len(app.extensions["live"].sessions)))
    server = Server(settings, app)
    print(f"http://127.0.0.1:{port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
