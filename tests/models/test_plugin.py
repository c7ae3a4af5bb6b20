"""A user's file with a method and a model: in both registries, in this process and in a fresh one."""
from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import explainers
import models
from explainers import METHODS
from models import Own
from models.base import BadInput

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = '''\
# mine.py: a method and a model of your own
import torch, torchvision
from explainers.base import Explanation, method
from models.base import Features, ModelInfo
from models.classifier import Classifier

@method("Brightness", group="maps", live=True, shows="Where it is bright.", cannot="What the model sees.")
def brightness(look, target):
    return Explanation(look.x[0].mean(0).cpu().numpy())

CATALOG = {"mine": ModelInfo("mine", "classify", "Mine", False, 44.7, "my own", "mine.pth")}

def halves(net):                                       # pixels to the last map, map to vector, the last layer
    body = torch.nn.Sequential(*list(net.children())[:-2])
    return lambda x: Features((body(x),)), lambda f: f.maps[0].mean((2, 3)), net.fc

def load(name, progress):
    net = torchvision.models.resnet18(num_classes=2)   # then net.load_state_dict(torch.load("mine.pth"))
    return Classifier(CATALOG[name], net, halves, 224, 0.875, (0.5,) * 3, (0.25,) * 3, {0: "cat", 1: "dog"})
'''
ELSEWHERE = """
import pickle, sys
import models
mine = pickle.loads(bytes.fromhex(sys.argv[1]))
assert "mine" in models.catalog((mine,)) and "mine" not in models.catalog()
import explainers, numpy
e = explainers.explain(models.load("mine", own=(mine,)), numpy.full((9, 9, 3), 51, "uint8"), "brightness")
print(e.method, round(float(e.heat.mean()), 3), e.target.index in (0, 1))
"""


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Own]:
    """The example as a file; what it registers goes with it."""
    before, known = dict(METHODS), set(sys.modules)
    file = tmp_path / "mine.py"
    file.write_text(EXAMPLE)
    yield Own(str(file))
    METHODS.clear()
    METHODS.update(before)
    for name in set(sys.modules) - known:
        if name.startswith("seewhy_plugin_"):
            del sys.modules[name]


def test_the_example_is_as_short_as_promised() -> None:
    assert len([line for line in EXAMPLE.splitlines() if line]) == 15


def test_a_plugin_joins_both_registries(mine: Own) -> None:
    assert "mine" not in models.catalog() and "brightness" not in METHODS
    info = models.catalog((mine,))["mine"]
    assert (info.title, info.task, METHODS["brightness"].title) == ("Mine", "classify", "Brightness")
    assert list(models.catalog((mine,)))[-1] == "mine"
    model = models.load("mine", own=(mine,))
    frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    e = explainers.explain(model, frame, "brightness", "class:dog")
    np.testing.assert_allclose(e.heat, model.prepare(frame).x[0].mean(0).cpu().numpy(), atol=1e-6)
    for name in ("grad_cam", "saliency", "occlusion"):
        assert explainers.explain(model, frame, name, "class:cat/versus:dog").raw_max > 0


def test_a_plugin_is_run_once(mine: Own) -> None:
    models.catalog((mine,))
    first = METHODS["brightness"]
    models.catalog((mine,))
    assert METHODS["brightness"] is first


def test_a_plugin_reaches_a_process_that_knows_nothing_but_its_name(mine: Own) -> None:
    done = subprocess.run([sys.executable, "-c", ELSEWHERE, pickle.dumps(mine).hex()], cwd=ROOT,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "brightness 0.2 True"


@pytest.mark.parametrize(("name", "text", "sentence"), [
    ("bad.py", "1 / 0\n", "the plugin bad.py could not be run: ZeroDivisionError: division by zero"),
    ("bad.py", "def (:\n", "the plugin bad.py could not be run: SyntaxError"),
    ("bad.py", "import no_such_module\n", "could not be run: ModuleNotFoundError: No module named"),
    ("bad.py", "raise SystemExit(3)\n", "the plugin bad.py could not be run: SystemExit: 3"),
    ("bad.py", "CATALOG = {}\n", "has a CATALOG and must have load"),
    ("gone.py", None, "a plugin must be a Python file .*, got .*gone.py"),
    ("note.txt", "hello\n", "a plugin must be a Python file .*, got .*note.txt")])
def test_a_broken_plugin_is_told_in_a_sentence(name: str, text: str | None, sentence: str,
                                               tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=sentence):
        models.plugin(tmp_path / name)
    if name.endswith(".py"):
        with pytest.raises(BadInput, match=sentence):
            models.catalog((Own(str(tmp_path / name)),))


def test_a_plugin_cannot_take_the_place_of_another_model(tmp_path: Path) -> None:
    file = tmp_path / "thief.py"
    file.write_text("from models.base import ModelInfo\n"
                    'CATALOG = {"resnet50": ModelInfo("resnet50", "classify", "Mine", False, 1, "", "")}\n'
                    "def load(name, progress): ...\n")
    with pytest.raises(BadInput, match="thief.py brings a model 'resnet50', and there is one of that name"):
        models.catalog((Own(str(file)),))
