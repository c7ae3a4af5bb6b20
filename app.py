"""Seewhy: `python app.py` serves the page; `python app.py predict cat.jpg` and others work without it."""
from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cli.parser import LOCAL, own_origins, parser
from models import store
from models.info import BadInput
from serving.settings import Settings

if TYPE_CHECKING:
    from flask import Flask, Response

# What takes long to import (Flask, torch, everything that looks) is imported where it is first used: a wrong
# call, --help and the list of models need none of it, and the port answers before torch is here.


def create_app(settings: Settings | None = None) -> Flask:
    """The page, its live channel (app.extensions["socketio"]) and four routes."""
    from serving.events import attach

    settings = settings or Settings()
    app = _pages(settings)
    attach(app, settings)
    return app


def _pages(settings: Settings) -> Flask:
    """The routes, which need nothing that looks."""
    from flask import Flask, jsonify, render_template, send_file

    from serving import presets
    from serving.access import protect

    app = Flask(__name__)
    app.config.update(SETTINGS=settings, PRESETS=presets.listing())
    protect(app, settings)

    @app.get("/")
    def page() -> str:
        return render_template("index.html")

    @app.get("/presets/<name>")
    def preset(name: str) -> Response | tuple[Response, int]:
        path = presets.path(name)
        if path is None:
            known = ", ".join(p["name"] for p in presets.listing())
            return jsonify(error=f"there is no preset {name!r}; there are {known}"), 404
        return send_file(path, conditional=True)

    @app.get("/vendor/socket.io.esm.min.js")
    def socket_client() -> Response | tuple[Response, int]:
        try:
            return send_file(store.fetch("socket.io.esm.min.js"), "text/javascript", conditional=True)
        except store.StoreError as problem:
            return jsonify(error=str(problem)), 503

    @app.get("/health")
    def health() -> Response:
        live = app.extensions.get("live")
        return jsonify(status="ok", clients=len(live.sessions) if live else 0)

    return app


def serve(settings: Settings, open_browser: bool = False) -> int:
    """Serve until Ctrl+C; the address is the one thing said."""
    import gc

    gc.disable()                               # a fifth of the time that importing torch takes; see door.py
    import logging
    import threading
    import webbrowser

    from serving.door import Door
    from serving.http import Server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)      # no request log: what is looked at is private
    app = _pages(settings)
    door = Door(app, settings)
    server = Server(settings, app)
    address = f"http://{'localhost' if settings.host in LOCAL else settings.host}:{settings.port}"
    print(f"Seewhy is at {address}  (Ctrl+C ends it)", flush=True)
    for origin in settings.origins:
        print(f"also allowed: {origin} (a browser gives its camera only to localhost or https)", flush=True)
    door.open()
    if open_browser:
        threading.Timer(0.5, webbrowser.open, [address]).start()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("closing", flush=True)
    finally:
        door.close()
        server.server_close()
    return 0


def run(args: argparse.Namespace) -> int:
    """Do what was asked for."""
    # Before a verb --task is the page's; an own ONNX model does what --task says, else it classifies.
    task = getattr(args, "task", None) or "classify"
    settings = Settings(host=args.host, port=args.port, task=task if args.verb is None else "classify",
                        captioner=getattr(args, "captioner", None), vocabulary=getattr(args, "vocab", None),
                        trusted_model=getattr(args, "trust_model", None), onnx=getattr(args, "onnx", None),
                        labels=getattr(args, "labels", None), onnx_task=task,
                        plugins=tuple(getattr(args, "plugin", ())),
                        origins=(*args.origin, *own_origins(args.host, args.port)))
    if args.verb is None:
        return serve(settings, args.open)
    if args.verb in ("models", "fetch"):
        from cli.listing import fetch, list_models

        return list_models(settings, args.json) if args.verb == "models" else fetch(args.names)
    from cli.common import Asked
    from cli.explain import explain
    from cli.predict import predict

    wanted: dict[str, Any] = dict(args.set)
    if args.threshold is not None:
        wanted["threshold"] = args.threshold
    asked = Asked(args.images, args.task, args.model, wanted)
    if args.verb == "predict":
        return predict(settings, asked, args.json)
    target = args.target
    if args.caption is not None:
        target = f"{target or 'caption'}/text:{args.caption.replace('/', ' ')}"
    return explain(settings, asked, args.method, target, dict(args.param), args.out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 when a file failed or could not be fetched; 2 for a wrong call, with one sentence."""
    try:
        return run(parser(__doc__).parse_args(arguments))
    except BadInput as problem:
        print(f"app.py: {problem}", file=sys.stderr)
        return 1 if isinstance(problem, store.StoreError) else 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)                             # a model still loading in its thread would abort otherwise
