"""What README shows is true: its plugin is run as it stands."""
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from serving import presets
from tests.conftest import ROOT


def test_the_plugin_of_the_readme_works_on_the_command_line(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (plugin,) = [block for block in blocks if "Which half?" in block]
    assert len([line for line in plugin.splitlines() if line.strip()]) <= 15
    file = tmp_path / "which_half.py"
    file.write_text(plugin)
    words = ["explain", presets.path("cat"), "--plugin", file, "--method", "which_half", "--out", tmp_path]
    done = subprocess.run([sys.executable, "app.py", *map(str, words)], cwd=ROOT, text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    heat = np.load(tmp_path / "chelsea.which_half.npy")
    assert len(np.unique(heat)) == 2 and "why " in done.stdout


def composed(*words: str) -> str:
    """What make would do."""
    return subprocess.run(["make", "--dry-run", "--always-make", "run", *words], cwd=ROOT, text=True,
                          capture_output=True, check=True).stdout


def test_the_way_without_cuda_takes_the_same_pins_in_both_descriptions() -> None:
    pins = dict(re.findall(r"^(torch|torchvision)==([\d.]+)", (ROOT / "requirements.txt").read_text(), re.M))
    wanted = " ".join(f"{name}=={version}+cpu" for name, version in pins.items())
    command = f"--index-url https://download.pytorch.org/whl/cpu {wanted}"
    light = [line for line in composed("TORCH=cpu").splitlines() if "pip install" in line]
    assert command in light[0] and light[1].endswith("-r requirements.txt")
    assert command in (ROOT / "README.md").read_text()
    assert "+cpu" not in composed()
