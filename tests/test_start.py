"""What each way to start may import: what is heavy waits until it is asked for."""
from __future__ import annotations

import subprocess
import sys

import pytest

from serving import presets
from tests.conftest import ROOT

LOOKS = {"torch", "torchvision", "cv2", "numpy", "flask", "requests"}
RARE = {"torchvision", "captum", "scipy.stats", "matplotlib", "skimage", "ultralytics", "tensorflow", "keras",
        "requests"}

LIVE = f"""
import threading
from serving.engine import See, Wish
from serving.local import LocalEngine
from serving.settings import Settings
engine, over = LocalEngine(Settings()), threading.Event()
engine.join("me")
def hear(event, fields):
    print(event, fields.get("classes", [dict(label="")])[0]["label"])
    if event == "explanation":
        over.set()
from pathlib import Path
import cv2
picture = cv2.imencode(".jpg", cv2.imread({str(presets.path("cat"))!r}))[1].tobytes()
engine.submit("me", 1, See(picture, Wish("classify", "efficientnet-lite0", method="grad_cam")), hear)
assert over.wait(120)
engine.close()
"""
COMMAND = "import app; assert app.main({words!r}) == 0"


def imported(code: str) -> set[str]:
    """The modules of a fresh process after some code, and every package above them."""
    done = subprocess.run([sys.executable, "-c", f"{code}\nimport sys\nprint('MODULES', *sys.modules)"],
                          cwd=ROOT, text=True, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("MODULES")]
    return set(said.split())


@pytest.mark.parametrize("code", [
    "import app",
    "import app\ntry:\n    app.main(['--help'])\nexcept SystemExit:\n    pass",
    "import app\ntry:\n    app.main(['dance'])\nexcept SystemExit:\n    pass",
    COMMAND.format(words=["models"]), COMMAND.format(words=["models", "--json"]),
], ids=["import", "help", "wrong call", "models", "models as JSON"])
def test_what_looks_at_nothing_imports_nothing_that_looks(code: str) -> None:
    assert not imported(code) & LOOKS


@pytest.mark.parametrize("code", [
    COMMAND.format(words=["predict", str(presets.path("cat"))]),
    COMMAND.format(words=["predict", str(presets.path("cat")), "--task", "caption"]),
    LIVE,
], ids=["predict", "caption", "live with a map"])
def test_looking_imports_nothing_that_it_does_not_need(code: str) -> None:
    assert not imported(code) & RARE
