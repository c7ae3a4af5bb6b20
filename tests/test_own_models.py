"""A user's own ONNX net, from the command's options to the command line's files and the page's socket."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from serving import presets
from serving.engine import See, Wish
from serving.local import LocalEngine, described
from serving.settings import Settings
from tests.conftest import ROOT, read_rgb

CAT = str(presets.path("cat"))
NAMES = ["ant", "bee", "cat"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small classifier and its labels."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 7, 7), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
                        nn.Linear(128, 3))
    folder = tmp_path_factory.mktemp("own")
    torch.onnx.export(net, (torch.rand(1, 3, 224, 224),), str(folder / "small.onnx"), dynamo=False)
    (folder / "labels.txt").write_text("\n".join(NAMES))
    return folder / "small.onnx", folder / "labels.txt"


def called(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "app.py", *words], cwd=ROOT, text=True, capture_output=True,
                          check=False)


def test_the_command_line_takes_an_own_net(files: tuple[Path, Path], tmp_path: Path) -> None:
    own = ["--onnx", str(files[0]), "--labels", str(files[1])]
    said = called("predict", CAT, "--json", *own)
    assert said.returncode == 0, said.stderr
    seen = json.loads(said.stdout)
    assert seen["model"] == "own-small" and {c["label"] for c in seen["classes"]} == set(NAMES)
    done = called("explain", CAT, "--param", "masks=40", "--out", str(tmp_path), *own)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "chelsea.rise.json").read_text())
    assert report["method"] == "rise" and not report["empty"]
    assert np.load(tmp_path / "chelsea.rise.npy").any()
    refused = called("explain", CAT, "--method", "grad_cam", "--out", str(tmp_path / "no"), *own)
    assert refused.returncode == 2 and "Grad-CAM" in refused.stderr and "Traceback" not in refused.stderr
    assert not (tmp_path / "no").exists()
    assert "own-small" in called("models", *own).stdout


def test_half_of_an_own_net_is_a_wrong_call(files: tuple[Path, Path]) -> None:
    said = called("predict", CAT, "--onnx", str(files[0]))
    assert said.returncode == 2 and "both --onnx FILE and --labels FILE" in said.stderr


def test_the_server_offers_it_with_what_fits(files: tuple[Path, Path]) -> None:
    engine = LocalEngine(Settings(onnx=files[0], labels=files[1]))
    picture = cv2.imencode(".jpg", read_rgb(Path(CAT)))[1].tobytes()
    with engine.work.shelf.using("own-small") as model:
        known = described(model)
    assert list(known["labels"].values()) == NAMES and known["offers"] == []
    assert "Grad-CAM" in known["lacking"]["grad_cam"] and "rise" not in known["lacking"]
    (event, said), = engine.work.run(See(picture, Wish("classify", "own-small")))
    assert event == "result" and said["model"] == "own-small" and len(said["classes"]) == 3
    engine.close()
