"""Seewhy: `python app.py` serves the page; `python app.py predict cat.jpg` and others work without it."""
from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, render_template, send_file
from werkzeug.serving import make_server

import models
from models import store
from models.base import BadInput
from serving import commands, presets
from serving.events import attach
from serving.security import protect
from serving.session import Settings


def create_app(settings: Settings | None = None) -> Flask:
    """The page, its live channel (app.extensions["socketio"]) and four routes."""
    settings = settings or Settings()
    commands.offer_own(settings)
    app = Flask(__name__)
    app.config.update(SETTINGS=settings, PRESETS=presets.listing())
    protect(app, settings)
    attach(app, settings)

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
        return jsonify(status="ok", clients=len(app.extensions["live"].sessions))

    return app


def serve(settings: Settings, open_browser: bool = False) -> int:
    """Serve until Ctrl+C; the address is the one thing said."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)      # no request log: what is looked at is private
    app = create_app(settings)
    server = make_server(settings.host, settings.port, app, threaded=True)
    address = f"http://{'localhost' if settings.host in LOCAL else settings.host}:{settings.port}"
    print(f"Seewhy is at {address}  (Ctrl+C ends it)", flush=True)
    for origin in settings.origins:
        print(f"also allowed: {origin} (a browser gives its camera only to localhost or https)", flush=True)
    live = app.extensions["live"]
    live.engine.ask(models.default(settings.task), "startup")  # so that the first visitor need not wait
    if open_browser:
        threading.Timer(0.5, webbrowser.open, [address]).start()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("closing", flush=True)
    finally:
        live.close()
        server.server_close()
    return 0


LOCAL = ("127.0.0.1", "localhost", "::1", "0.0.0.0", "::")


def own_origins(host: str, port: int) -> tuple[str, ...]:
    """The names under which others reach a server that listens to all of them."""
    if host not in ("0.0.0.0", "::"):
        return ()
    name = socket.gethostname()
    try:
        addresses = socket.gethostbyname_ex(name)[2]
    except OSError:
        addresses = []
    return tuple(f"http://{n}:{port}" for n in dict.fromkeys([name, *addresses]) if n not in LOCAL)


def pair(text: str) -> tuple[str, str]:
    """k=v of the command line."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def parser() -> argparse.ArgumentParser:
    """The command line in full."""
    own = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    own.add_argument("--captioner", type=Path, metavar="FILE", help="your own captioner, .h5 or .keras")
    own.add_argument("--vocab", type=Path, metavar="FILE", help="its vocabulary, a word a line")
    own.add_argument("--trust-model", type=Path, metavar="FILE.pt",
                     help="your own YOLO; a .pt file can run code, so name only one that you trust")
    whole = argparse.ArgumentParser(prog="app.py", description=__doc__, parents=[own])
    whole.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets others in; there is no password")
    whole.add_argument("--port", type=int, default=4200)
    whole.add_argument("--open", action="store_true", help="open the page in the browser")
    whole.add_argument("--origin", action="append", default=[], metavar="URL",
                       help="another address that the page is reached by, say behind a proxy")
    verbs = whole.add_subparsers(dest="verb", metavar="models | fetch | predict | explain")

    listing = verbs.add_parser("models", parents=[own], help="list the models")
    listing.add_argument("--json", action="store_true")
    fetch = verbs.add_parser("fetch", help="bring models here; without names, the embedded ones")
    fetch.add_argument("names", nargs="*", metavar="NAME")

    looking = argparse.ArgumentParser(add_help=False, parents=[own])
    looking.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    looking.add_argument("--task", help="classify, detect or caption")
    looking.add_argument("--model", help="a name from `models`; without it the embedded one of the task")
    looking.add_argument("--threshold", type=float, help="least confidence of a box")
    looking.add_argument("--set", type=pair, action="append", default=[], metavar="NAME=VALUE",
                         help="any setting of the model, say beam=5")
    predict = verbs.add_parser("predict", parents=[looking], help="what a model sees")
    predict.add_argument("--json", action="store_true", help="one JSON object a line")
    explain = verbs.add_parser("explain", parents=[looking], help="why it sees that")
    explain.add_argument("--method", help="default: odam for boxes, else grad_cam")
    explain.add_argument("--target", help="class:281/versus:282, box:0/side:left, word:3 ...")
    explain.add_argument("--param", type=pair, action="append", default=[], metavar="NAME=VALUE")
    explain.add_argument("--caption", metavar="TEXT", help="explain this caption instead of the model's own")
    explain.add_argument("--out", type=Path, default=Path("explanations"), metavar="DIR")
    return whole


def run(args: argparse.Namespace) -> int:
    """Do what was asked for."""
    settings = Settings(host=args.host, port=args.port, captioner=getattr(args, "captioner", None),
                        vocabulary=getattr(args, "vocab", None),
                        trusted_model=getattr(args, "trust_model", None),
                        origins=(*args.origin, *own_origins(args.host, args.port)))
    if args.verb is None:
        return serve(settings, args.open)
    commands.offer_own(settings)
    if args.verb == "models":
        return commands.list_models(args.json)
    if args.verb == "fetch":
        return commands.fetch(args.names)
    wanted: dict[str, Any] = dict(args.set)
    if args.threshold is not None:
        wanted["threshold"] = args.threshold
    work = commands.Work(args.images, args.task, args.model, wanted)
    if args.verb == "predict":
        return commands.predict(work, args.json)
    target = args.target
    if args.caption is not None:
        target = f"{target or 'caption'}/text:{args.caption.replace('/', ' ')}"
    return commands.explain(work, args.method, target, dict(args.param), args.out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 when a file failed or could not be fetched; 2 for a wrong call, with one sentence."""
    try:
        return run(parser().parse_args(arguments))
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
