"""Whether the server lives, whether it can look, what it did; and models that do not come."""
from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families
from served import put_online, served
from stand_in import Client, colour, jpeg, until
from test_wire import Caller, asked

import app
import models
from models import store
from models.base import Model
from serving import access, health
from serving.events import Live
from serving.keeper import Keeper
from serving.metrics import BOUNDS, Meter
from serving.settings import Settings
from tests.conftest import ROOT

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
Online = tuple[Live, str]
TOKEN = "a-token-for-tests"


@pytest.fixture
def watched(online: Online) -> Online:
    health.watch(online[0].app)
    return online


def figures(url: str, **headers: str) -> dict[tuple[str, ...], float]:
    """Every number of /metrics, by its name and the values of its labels."""
    reply = asked(url, "/metrics", **headers)
    assert reply.status == 200 and reply.getheader("Content-Type", "").startswith("text/plain")
    samples = [sample for family in text_string_to_metric_families(reply.read().decode())
               for sample in family.samples]

    def named(labels: dict[str, str]) -> list[str]:
        return [labels[name] for name in sorted(labels, key=lambda name: name == "le")]

    return {(s.name.removeprefix("seewhy_"), *named(s.labels)): s.value for s in samples}


def test_what_happened_is_counted(watched: Online) -> None:
    live, url = watched
    caller = Caller(url)
    caller.io.emit("configure", {"method": "toy_odd"})
    for seq in range(1, 6):
        assert caller.frame(seq, jpeg(colour("red")), keep=seq == 5)["classes"]
    assert caller.frame(6, b"no picture")["code"] == "not_jpeg"
    for id in (1, 2):
        caller.io.emit("explain", {"id": id, "seq": 5, "method": "toy_odd"})
        caller.one("explanation", id=id)
    asked(url, "/", Host="evil.example")
    said = figures(url)
    assert said["frames_total", "classify"] == 5 and said["errors_total", "not_jpeg"] == 1
    assert said["explanations_total", "toy_odd"] == 7 and said["refused_total", "host"] == 1
    for stage in ("decode", "wait", "prepare", "encode", "predict", "explain"):
        assert said["stage_milliseconds_count", stage] == 5, stage
        assert 0 < said["stage_milliseconds_sum", stage] < 5 * 60_000
        counts = [said["stage_milliseconds_bucket", stage, le] for le in (*map(str, BOUNDS), "+Inf")]
        assert counts == sorted(counts) and counts[-1] == 5
    assert said["clients",] == 1 and said["viewers",] == 0 and said["waiting_frames",] == 0
    assert said["cache_bytes",] > 0 and said["cache_hits_total",] >= 1 and said["cache_misses_total",] >= 1
    assert said["kept_bytes",] == len(jpeg(colour("red"))) and said["oldest_frame_seconds",] == 0
    assert said["model_info", "toy", "torch"] == 1
    assert said["process_resident_memory_bytes",] > 0 or sys.platform != "linux"
    caller.io.disconnect()


def test_drops_and_waiting_are_seen_while_they_are(live: Live) -> None:
    health.watch(live.app)
    client = Client(live).here()
    client.emit("configure", {"model": "toy-slow"})
    for seq in (1, 2, 3):
        client.emit("frame", {"seq": seq, "jpeg": jpeg(colour("red")), "model": "toy-slow"})
    client.one("dropped", seq=2)
    said = live.app.extensions["meter"].copy()[0]
    assert said["drops", "newer"] == 2
    assert live.engine.figures().frames == 1 and "toy-slow" in live.engine.figures().coming
    assert live.engine.figures().oldest == 0, "it waits for its model, not for its turn"


def test_two_servers_count_apart_and_a_scrape_changes_nothing(toys: None) -> None:
    for first in served(Settings(port=4200)):
        for second in served(Settings(port=4201)):
            Client(first).here().frame(colour("red"))
            assert first.app.extensions["meter"].counts["frames", "classify"] == 1
            assert second.app.extensions["meter"].counts["frames", "classify"] == 0
            health.watch(first.app)
            pages = first.app.test_client()
            texts = [pages.get("/metrics").text for _ in range(3)]
            assert all('seewhy_frames_total{task="classify"} 1.0' in text for text in texts)


@pytest.mark.parametrize(("address", "headers", "status"), [
    ("127.0.0.1", {}, 200), ("10.0.0.9", {}, 401), ("10.0.0.9", {"Authorization": f"Bearer {TOKEN}"}, 200),
    ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, 401), ("10.0.0.9", {"X-Forwarded-For": "127.0.0.1"}, 401),
    ("10.0.0.9", {"Cookie": "viewer"}, 403), ("10.0.0.9", {"Cookie": "presenter"}, 200)])
def test_metrics_are_for_this_machine_and_the_presenter(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, headers: dict[str, Any],
        status: int) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path))
    settings = Settings(token=TOKEN)
    made = app._pages(settings)
    made.extensions["meter"] = Meter()
    if "Cookie" in headers:
        headers = {"Cookie": Keeper(settings).header(headers["Cookie"], {}).partition(";")[0]}
    made.wsgi_app = access.gate(made.wsgi_app, settings, Meter())  # type: ignore[method-assign,arg-type]
    pages = made.test_client(use_cookies=False)
    reply = pages.get("/metrics", headers=headers, environ_base={"REMOTE_ADDR": address})
    assert reply.status_code == status


def test_counting_costs_next_to_nothing() -> None:
    """Of a frame that takes tens of milliseconds: far below what could be measured in the live path."""
    meter = Meter()
    stages = ("decode", "wait", "prepare", "encode", "predict")
    fields = {"task": "classify", "ms": dict.fromkeys(stages, 3.0)}
    start = time.thread_time()
    for _ in range(2000):
        meter.said("result", fields)
    assert (time.thread_time() - start) / 2000 < 200e-6


def test_what_few_need_is_imported_by_those_alone() -> None:
    code = ("import app, sys\nfrom serving.settings import Settings\napp._pages(Settings())\n"
            "import serving.http, serving.door\nprint(*sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    assert not {"prometheus_client", "cryptography", "segno", "psutil", "torch"} & set(done.stdout.split())


# -- alive and ready


def ready(url: str) -> tuple[int, str]:
    reply = asked(url, "/health/ready")
    return reply.status, json.load(reply).get("reason", "")


def test_ready_says_what_is_missing(watched: Online) -> None:
    live, url = watched
    assert asked(url, "/health/live").status == 200 and ready(url)[0] == 503
    live.bring()
    until(lambda: ready(url) == (200, ""), "the first model")


def test_before_the_libraries_are_there_it_lives_and_is_not_ready() -> None:
    made = app._pages(Settings())
    pages = made.test_client()
    assert pages.get("/health/live").status_code == 200
    reply = pages.get("/health/ready")
    assert reply.status_code == 503 and "PyTorch is still starting" in reply.text
    made.extensions["door"] = type("Door", (), {"problem": ImportError("no module named torch")})
    reply = pages.get("/health/ready")
    assert reply.status_code == 503 and "could not start: no module named torch" in reply.text


@pytest.fixture
def without_detector(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                     lite0: Model) -> Iterator[Online]:
    """The real detector's file is missing or spoilt, and nothing answers where it could be had."""
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path))
    nowhere = (store.Url("http://127.0.0.1:9/weights"),)
    asset = replace(store.ASSETS["yolov3-tiny.weights"], sources=nowhere)
    monkeypatch.setitem(store.ASSETS, asset.name, asset)
    kept: bytes | None = {"missing": None, "cut off": b"\0" * 1000,
                          "another": b"\1" * (asset.bytes or 0)}[request.param]
    if kept is not None:
        asset.path.parent.mkdir(parents=True)
        asset.path.write_bytes(kept)
    load = models.load
    monkeypatch.setattr(models, "load", lambda name, progress: lite0 if name == lite0.info.name else
                        load(name, progress))
    for live, url in put_online(task="detect", compiled=False):
        health.watch(live.app)
        yield live, url


@pytest.mark.parametrize("without_detector", ["missing", "cut off", "another"], indirect=True)
def test_a_model_that_does_not_come_keeps_the_server_alive_and_is_named(without_detector: Online) -> None:
    live, url = without_detector
    live.bring()
    until(lambda: "could not be fetched" in ready(url)[1] or "cannot be fetched" in ready(url)[1],
          "the reason", 20)
    assert ready(url)[0] == 503 and asked(url, "/health/live").status == 200
    client = Client(live)
    said = client.one("error", code="offline")
    assert "http://127.0.0.1:9/weights" in said["message"], "the page says why"
    client.emit("configure", {"task": "classify"})
    until(lambda: any(r["configured"]["task"] == "classify" for r in client.all("ready")), "the other model")
    assert client.frame(colour("red"))["classes"] and ready(url) == (200, "")


def test_the_app_is_ready_without_anybody_asking(lite0: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "load", lambda name, progress: {"efficientnet-lite0": lite0}[name])
    made: Flask = app.create_app(Settings())
    until(lambda: made.test_client().get("/health/ready", headers={"Host": "localhost"}).status_code == 200,
          "the first model")
    made.extensions["live"].close()
