"""Seewhy: `python app.py` serves the page; `python app.py predict cat.jpg` and others work without it."""
from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cli.parser import parser
from models import store
from models.info import BadInput
from serving.settings import Settings

if TYPE_CHECKING:
    from flask import Flask, Response

# What takes long to import (Flask, torch, everything that looks) is imported where it is first used: a wrong
# call, --help and the list of models need none of it, and the port answers before torch is here.


def create_app(settings: Settings | None = None) -> Flask:
    """The page and its live channel (app.extensions["socketio"]); the first model is on its way."""
    from serving.events import attach

    settings = settings or Settings()
    app = _pages(settings)
    attach(app, settings)
    app.extensions["live"].bring()
    return app


def _pages(settings: Settings) -> Flask:
    """The routes, which need nothing that looks."""
    from flask import Flask, jsonify, make_response, render_template, request, send_file

    from serving import presets
    from serving.access import let_in, protect, role
    from serving.health import watch

    app = Flask(__name__)
    app.config.update(SETTINGS=settings, PRESETS=presets.listing())
    protect(app, settings)
    watch(app)

    @app.get("/")
    def page() -> str:
        return render_template("index.html")

    @app.get("/join/<code>")
    def join(code: str) -> Response:
        """The same page, for whoever watches; a room's code lets in who has nothing else to show."""
        page = make_response(render_template("index.html", watching=True))
        try:
            live = app.extensions.get("live")
            if role(request.environ) is None and not (
                    live and live.rooms.known(code, request.remote_addr or "")):
                raise BadInput("no room has that code; ask for the link again")
        except BadInput as problem:
            page = make_response(f"{problem}\n", 404, {"Content-Type": "text/plain; charset=utf-8"})
        else:
            if cookie := let_in(request.environ):
                page.headers.add("Set-Cookie", cookie)
        return page

    @app.get("/presets/<name>")
    def preset(name: str) -> Response | tuple[Response, int]:
        path = presets.path(name)
        if path is None:
            known = ", ".join(p["name"] for p in presets.listing())
            return jsonify(error=f"there is no preset {name[:40]!r}; there are {known}"), 404
        return send_file(path, conditional=True)

    @app.get("/vendor/socket.io.esm.min.js")
    def socket_client() -> Response | tuple[Response, int]:
        try:
            return send_file(store.fetch("socket.io.esm.min.js"), "text/javascript", conditional=True)
        except store.StoreError as problem:
            return jsonify(error=str(problem)), 503

    return app


def serve(settings: Settings, open_browser: bool = False) -> int:
    """Serve until Ctrl+C or SIGTERM; the address is the one thing said."""
    import gc

    gc.disable()                               # a fifth of the time that importing torch takes; see door.py
    import logging
    import threading
    import webbrowser

    from cli.lan import announce, link
    from serving.door import Door, two_arenas
    from serving.http import Server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)      # no request log: what is looked at is private
    two_arenas()
    app = _pages(settings)
    door = Door(app, settings)
    server = Server(settings, app)
    announce(settings)
    door.open()
    if open_browser:
        threading.Timer(0.5, webbrowser.open, [link(settings, here=True)]).start()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):          # Werkzeug takes most of them for itself, but not all
        server.serve_forever()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)          # it is being done; Ctrl+C ends it at once
    print("closing", flush=True)
    door.close()
    return 0


def run(args: argparse.Namespace) -> int:
    """Do what was asked for."""
    # Before a verb --task is the page's; an own ONNX model does what --task says, else it classifies.
    task = getattr(args, "task", None) or "classify"
    settings = Settings(port=args.port, task=task if args.verb is None else "classify",
                        captioner=getattr(args, "captioner", None), vocabulary=getattr(args, "vocab", None),
                        trusted_model=getattr(args, "trust_model", None), onnx=getattr(args, "onnx", None),
                        labels=getattr(args, "labels", None), onnx_task=task,
                        plugins=tuple(getattr(args, "plugin", ())))
    if args.verb is None:
        from cli.lan import network

        return serve(replace(settings, **network(args)), args.open)
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
