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
