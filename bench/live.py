"""What living costs: a map for every frame, and the way from the browser to the model and back."""
from __future__ import annotations

import base64
import json
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch

import models
from bench.table import Row, at_most, paired
from explainers import Look, parse_target, steps
from models.base import Model, Target
from serving import presets

ROOT = Path(__file__).resolve().parent.parent
# One frame after the other, as the page sends them; what is timed is what the person waits for.
ROUND_TRIPS = """async ([jpeg, count]) => {
  const { io } = await import('/vendor/socket.io.esm.min.js');
  const bytes = Uint8Array.from(atob(jpeg), (c) => c.charCodeAt(0));
  const socket = io({ transports: ['websocket'], forceNew: true });
  const once = (event) => new Promise((done) => { socket.once(event, done); });
  await once('ready');
  socket.emit('configure', { task: 'classify', method: null });
  let ready = await once('ready');
  while (ready.configured.method !== null) ready = await once('ready');
  const trips = [];
  for (let seq = 1; seq <= count; seq += 1) {
    const start = performance.now();
    socket.emit('frame', { seq, jpeg: bytes });
    const result = await once('result');
    trips.push([performance.now() - start, result.ms]);
  }
  socket.disconnect();
  return trips;
}"""


def rows(quick: bool = False) -> Iterator[Row]:
    """The four promises of the live page."""
    repeats = 12 if quick else 60
    model, frame = models.load("efficientnet-lite0"), photograph("cat")
    yield at_most("predict + Grad-CAM / predict", map_over_predict(model, frame, repeats), 1.05)
    yield at_most("saliency / bare forward and input gradient",
                  saliency_over_bare(model, frame, repeats), 1.05)
    yield at_most("ours / pytorch-grad-cam, prediction and CAM", ours_over_theirs(model, frame, repeats), 0.3,
                  "the same net; theirs predicts, then runs forward and backward once more")
    yield round_trip_over_model(frame, repeats)


def photograph(name: str) -> np.ndarray:
    """A preset as HxWx3 uint8 RGB."""
    path = presets.path(name)
    assert path is not None, f"the package with the preset {name} is not installed"
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB))


def seen(model: Model, frame: np.ndarray) -> Look:
    return Look(model, frame)


def explained(model: Model, frame: np.ndarray, method: str) -> np.ndarray:
    """Prediction and map as the live channel makes them."""
    look = Look(model, frame)
    *_, last = steps(look, method, parse_target(None, look), {})
    return last.heat


def map_over_predict(model: Model, frame: np.ndarray, repeats: int) -> float:
    return paired(lambda: explained(model, frame, "grad_cam"), lambda: seen(model, frame), repeats)


def saliency_over_bare(model: Model, frame: np.ndarray, repeats: int) -> float:
    """Both from the same look: what the method adds to the gradient that it cannot do without."""
    look = Look(model, frame)
    target = Target(index=look.prediction.classes[0].index)

    def bare() -> None:
        x = look.x.clone().requires_grad_()
        torch.autograd.grad(model.score(model.encode(x), target).sum(), x)

    return paired(lambda: [*steps(look, "saliency", target, {})], bare, repeats)


def ours_over_theirs(model: Model, frame: np.ndarray, repeats: int) -> float:
    """A frame named and mapped by us, over the same by the plain net and pytorch-grad-cam."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    net: torch.nn.Module = model.net.requires_grad_(True)  # type: ignore[attr-defined]
    cam = GradCAM(model=net, target_layers=[net._bn1])
    shift, spread = model._shift, model._spread  # type: ignore[attr-defined]

    def theirs() -> np.ndarray:
        x = (model.prepare(frame).x - shift) / spread
        with torch.no_grad():
            best = int(net(x).argmax())
        return cam(input_tensor=x, targets=[ClassifierOutputTarget(best)])

    try:
        return paired(lambda: explained(model, frame, "grad_cam"), theirs, repeats)
    finally:
        cam.activations_and_grads.release()
        net.requires_grad_(False)


def round_trip_over_model(frame: np.ndarray, repeats: int) -> Row:
    """From the page's `emit` to its `result`, over the milliseconds that the model itself took."""
    from playwright.sync_api import sync_playwright

    name = "browser-side round trip / model time"
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        return Row(name, "no Chromium", "<= 1.1", False, "make test installs it")
    small = cv2.resize(frame, (640, 480), interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
    with served() as address, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page()
        page.goto(f"{address}/static/icon.svg")                # same origin, and nothing else that runs
        trips = page.evaluate(ROUND_TRIPS, [base64.b64encode(data).decode(), repeats + 5])[5:]
        chromium.close()
    whole = [t for t, _ in trips]
    model = [ms["prepare"] + ms["encode"] + ms["predict"] for _, ms in trips]
    middle = {part: statistics.median(ms[part] for _, ms in trips) for part in ("decode", "wait", "encode")}
    return at_most(name, statistics.median(t / m for t, m in zip(whole, model, strict=True)), 1.1,
                   f"{statistics.median(whole):.1f} ms over {statistics.median(model):.1f} ms; of it "
                   + ", ".join(f"{part} {ms:.1f}" for part, ms in middle.items()))


@contextmanager
def served() -> Iterator[str]:
    """The real server in its own process, on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=ROOT,
                               stdout=subprocess.DEVNULL)
    address = f"http://localhost:{port}"
    try:
        for _ in range(600):
            try:
                assert json.load(urllib.request.urlopen(f"{address}/health"))["status"] == "ok"
                break
            except urllib.error.URLError:
                assert process.poll() is None, "the server ended before it could be asked"
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(30)
