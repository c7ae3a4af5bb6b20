"""The real application with a real model and a real photograph, over a real socket."""
from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from stand_in import jpeg, until
from test_wire import Caller, asked
from werkzeug.serving import make_server

import models
from app import create_app
from models.base import Model
from serving.frames import decode_live
from serving.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
CATS = {281, 282, 283, 285}                    # tabby, tiger cat, Persian, Egyptian


@pytest.fixture
def page(lite0: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the whole application; its classifier is the one the other tests loaded."""
    monkeypatch.setattr(models, "load", lambda name, progress: {"efficientnet-lite0": lite0}[name])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = create_app(Settings(port=port))
    server = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{port}"
    app.extensions["live"].close()
    server.shutdown()
    thread.join(5)


def test_a_photograph_is_seen_and_explained_live(page: str, photographs: dict[str, np.ndarray],
                                                 lite0: Model) -> None:
    caller = Caller(page)
    data = jpeg(photographs["cat"])
    caller.io.emit("configure", {"method": "grad_cam"})
    said = caller.frame(1, data)
    height, width = photographs["cat"].shape[:2]
    assert said["classes"][0]["index"] in CATS and said["size"] == [width, height]

    canvas = lite0.prepare(decode_live(data))
    own = lite0.predict(lite0.encode(canvas.x), canvas)
    assert [c["index"] for c in said["classes"]] == [c.index for c in own.classes]
    assert said["area"] == list(canvas.area)

    why = caller.one("explanation", seq=1)
    heat = np.frombuffer(why["heat"], np.uint8).reshape(why["shape"])
    assert why["live"] and heat.max() == 255 and max(heat.shape) <= 256 and not why["empty"]
    assert why["title"] == f"why {said['classes'][0]['label']}"


def test_two_classes_of_a_kept_photograph_have_two_maps(page: str,
                                                        photographs: dict[str, np.ndarray]) -> None:
    caller = Caller(page)
    caller.frame(1, jpeg(photographs["cat"]), keep=True)
    maps: dict[str, Any] = {}
    for target in ("class:281", "class:849"):
        caller.io.emit("explain", {"id": target, "seq": 1, "method": "grad_cam", "target": target})
        maps[target] = caller.one("explanation", id=target, done=True)
    assert maps["class:281"]["heat"] != maps["class:849"]["heat"]
    assert maps["class:849"]["title"] == "why teapot"


def test_every_method_offered_for_a_photograph_answers_or_says_why_not(
        page: str, photographs: dict[str, np.ndarray]) -> None:
    caller = Caller(page)
    caller.frame(1, jpeg(photographs["cat"]), keep=True)
    methods = [m for m in caller.all("ready")[-1]["methods"] if "classify" in m["tasks"]]
    assert len(methods) >= 10
    for m in methods:
        low = {p["name"]: p["low"] for p in m["parameters"] if p["whole"] and not p["choices"]
               and not isinstance(p["default"], bool)}
        caller.io.emit("explain", {"id": m["name"], "seq": 1, "method": m["name"], "params": low})
        said = until(lambda n=m["name"]: caller.all("explanation", id=n)     # type: ignore[misc]
                     or caller.all("error", id=n), m["name"], 60)[0]
        caller.io.emit("stop", {"id": m["name"]})
        assert said.get("code", "bad_input") == "bad_input", f"{m['name']}: {said}"
        if "heat" in said:
            assert len(said["heat"]) == said["shape"][0] * said["shape"][1]
    assert caller.frame(2, jpeg(photographs["cat"]))["classes"][0]["index"] in CATS


def test_every_route_is_protected(page: str) -> None:
    for path in ("/", "/presets/cat", "/presets/none", "/static/js/main.js"):
        reply = asked(page, path)
        assert "default-src 'self'" in reply.getheader("Content-Security-Policy", "")
        assert reply.getheader("X-Content-Type-Options") == "nosniff"
        assert "no-cache" in reply.getheader("Cache-Control", "")
    first = asked(page, "/static/js/main.js")
    assert asked(page, "/static/js/main.js", **{"If-None-Match": first.getheader("ETag", "")}).status == 304
