"""The command line in full, and the settings that it amounts to."""
from __future__ import annotations

import argparse
from pathlib import Path


def parser(about: str | None) -> argparse.ArgumentParser:
    """Every verb with its options."""
    own = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    own.add_argument("--captioner", type=Path, metavar="FILE", help="your own captioner, .h5 or .keras")
    own.add_argument("--vocab", type=Path, metavar="FILE", help="its vocabulary, a word a line")
    own.add_argument("--trust-model", type=Path, metavar="FILE.pt",
                     help="your own YOLO; a .pt file can run code, so name only one that you trust")
    own.add_argument("--onnx", type=Path, metavar="FILE.onnx", help="your own classifier or detector")
    own.add_argument("--labels", type=Path, metavar="FILE", help="its classes, a name a line")
    own.add_argument("--plugin", type=Path, action="append", metavar="FILE.py",
                     help="your own methods or models; the file is run, so name only one that you trust")
    whole = argparse.ArgumentParser(prog="app.py", description=about, parents=[own])
    whole.add_argument("--task", default="classify",
                       help="what the page begins with, and what --onnx does: classify, detect or caption")
    whole.add_argument("--lan", action="store_true",
                       help="let others on this network in: https, and a link with a token in it")
    whole.add_argument("--host", help="the address to listen on instead of 127.0.0.1 (with --lan: 0.0.0.0)")
    whole.add_argument("--token", metavar="TEXT",
                       help="what opens the page, instead of a new one each time; SEEWHY_TOKEN says it to "
                            "this program alone")
    whole.add_argument("--port", type=port, default=4200)
    whole.add_argument("--open", action="store_true", help="open the page in the browser")
    whole.add_argument("--origin", action="append", default=[], metavar="URL",
                       help="another address that the page is reached by, say behind a proxy")
    verbs = whole.add_subparsers(dest="verb", metavar="models | fetch | predict | explain")

    listing = verbs.add_parser("models", parents=[own], help="list the models")
    listing.add_argument("--json", action="store_true")
    listing.add_argument("--task", default=argparse.SUPPRESS, help="what --onnx does")
    fetch = verbs.add_parser("fetch", help="bring models here; without names, the embedded ones")
    fetch.add_argument("names", nargs="*", metavar="NAME")

    looking = argparse.ArgumentParser(add_help=False, parents=[own])
    looking.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    looking.add_argument("--task", default=None, help="classify, detect or caption")
    looking.add_argument("--model",
                         help="a name from `models`; without it your own, or the embedded one of the task")
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


def port(text: str) -> int:
    """One that a server can have; the system would take a larger one for another."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) < 2**16):
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text[:40]!r}")
    return int(text)


def pair(text: str) -> tuple[str, str]:
    """k=v of the command line."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value
