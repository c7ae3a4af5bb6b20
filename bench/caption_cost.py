"""What a caption costs: the first one, the command line, memory, all words' maps."""
from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np

import models
from bench.browser import free_port, photograph
from bench.start import ROOT
from bench.table import Ratio, Row, at_most, paired
from explainers import Look, Question, resolve
from explainers.words import word_maps
from models import compiled
from models.captioner.decoder import Decoder
from models.captioner.steps import Speaker
from serving import presets

if TYPE_CHECKING:
    from models.captioner.model import TorchCaptioner

TASKS = ("classify", "detect", "caption")
# Reading the weights and saying one caption, in a process that has used torch before.
BARE = """
import sys, time, cv2, torch, models
from explainers import Look
frame = cv2.imread(sys.argv[1], cv2.IMREAD_COLOR_RGB)
Look(models.load(models.default("classify")), frame)
start = time.perf_counter()
Look(models.load(models.default("caption")), frame)
print(time.perf_counter() - start)
"""


def rows(quick: bool) -> Iterator[Row]:
    """The first caption, then ratios within one process, then memory."""
    picture = str(presets.path("cat"))
    yield from _first(picture, 2 if quick else 5)
    yield _command_line(picture, 2 if quick else 7)
    yield from _words(quick)


def _frames() -> list[np.ndarray]:
    found = [path for name in presets.PRESETS if (path := presets.path(name))]
    return [frame for path in found if (frame := cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)) is not None]


def _resident(pid: int | str = "self") -> float:
    """Megabytes of a process; Linux only."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


def _first(picture: str, times: int) -> Iterator[Row]:
    """From the choice of Caption to its first caption, on a server that classifies; and then its memory."""
    seconds, ratios, memory = [], [], []
    for _ in range(times):
        bare = subprocess.run([sys.executable, "-c", BARE, picture], cwd=ROOT, capture_output=True, text=True,
                              check=True)
        first, resident = _served()
        seconds.append(first)
        ratios.append(first / float(bare.stdout))
        memory.append(resident)
    yield at_most("seconds from choosing Caption to the first caption", statistics.median(seconds), 1.5)
    yield at_most("the same / read weights + one caption", Ratio(ratios), 1.2)
    if any(memory):
        yield at_most("memory with all three tasks used, MB", statistics.median(memory), 1300)


def _served() -> tuple[float, float]:
    """Seconds to a server's first caption, and its megabytes after a minute's work in each task."""
    import socketio

    from serving.frames import encode_jpeg

    port, jpeg = free_port(), encode_jpeg(photograph("cat"))
    server = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=ROOT, env=os.environ,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    heard: dict[str, threading.Event] = {task: threading.Event() for task in TASKS}

    def result(said: dict[str, Any]) -> None:
        heard[said["task"]].set()

    try:
        client = socketio.Client(reconnection=False)
        client.on("result", result)
        for _ in range(400):
            try:
                client.connect(f"http://127.0.0.1:{port}", transports=["websocket"])
                break
            except Exception:                  # not there yet
                time.sleep(0.05)
        client.emit("frame", {"seq": 1, "jpeg": jpeg})
        assert heard["classify"].wait(60), "no class came within a minute"
        time.sleep(4)                          # start-up is over: what is compiled is compiled
        start = time.perf_counter()
        client.emit("configure", {"task": "caption", "method": "word_maps"})
        client.emit("frame", {"seq": 2, "jpeg": jpeg})
        assert heard["caption"].wait(60), "no caption came within a minute"
        first = time.perf_counter() - start
        resident = 0.0
        if Path("/proc/self/statm").exists():
            for seq, task in enumerate([*TASKS, *TASKS], 3):
                heard[task].clear()
                client.emit("configure", {"task": task})
                client.emit("frame", {"seq": seq, "jpeg": jpeg, "keep": True})
                assert heard[task].wait(60), f"{task} did not answer within a minute"
                client.emit("explain", {"seq": seq, "method": "saliency"})
                time.sleep(2)
            resident = _resident(server.pid)
        client.disconnect()
        return first, resident
    finally:
        server.kill()
        server.wait()


def _command_line(picture: str, times: int) -> Row:
    """`predict` for a caption over `predict` for a class, one after the other."""
    def seconds(task: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "app.py", "predict", picture, "--task", task], cwd=ROOT,
                       capture_output=True, check=True)
        return time.perf_counter() - start

    return at_most("predict --task caption / predict --task classify",
                   Ratio([seconds("caption") / seconds("classify") for _ in range(times)]), 1.2)


def decoder_of(model: TorchCaptioner) -> Decoder:
    """What speaks where nothing is compiled."""
    assert isinstance(model.speech, Speaker)
    return model.speech.decoder


def _words(quick: bool) -> Iterator[Row]:
    """All words' maps over the caption they belong to, as served; and what many of them leave behind."""
    model = cast("TorchCaptioner", models.load("efficientnetv2-lstm"))
    compiled.compile_model(model)
    frames = _frames()
    frame, repeats = frames[0], 15 if quick else 101
    look = Look(model, frame)
    whole = resolve(Question(), look)
    count = len(look.prediction.words)

    def seen() -> None:
        Look(model, frame)

    def with_words() -> None:
        word_maps(Look(model, frame), whole)

    def torch_alone() -> None:
        with compiled.in_torch():
            torch_speech.channel_gradients(torch_speech.look(maps), whole.words or ())

    maps, torch_speech = look.features.maps[0].flatten(2).transpose(1, 2), decoder_of(model)
    yield at_most(f"caption with Grad-CAM of all {count} words / caption",
                  paired(with_words, seen, repeats), 1.15, f"it is seen by {compiled.state_of(model)}")
    yield Row("gradients of all words, compiled / in torch", paired(
        lambda: model.channel_gradients(look.features, whole), torch_alone, repeats))
    yield Row("beam-3 decoding / encoding", paired(
        lambda: model.sentences(look.features, 3), lambda: Look(model, frame).features, repeats))

    def many(times: int) -> None:
        for i in range(times):
            again = Look(model, frames[i % len(frames)])
            word_maps(again, resolve(Question(), again))

    if Path("/proc/self/statm").exists():
        times = 60 if quick else 500
        many(30)
        before = _resident()
        many(times)
        yield at_most(f"growth over {times} captions with all maps, MB", _resident() - before, 30)
