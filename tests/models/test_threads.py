"""How torch's threads wait is settled before torch is imported, whoever comes first."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What the environment said when torch was first looked for.
SCRIPT = """
import importlib, os, sys
seen = []
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            seen.append(os.environ.get("GOMP_SPINCOUNT"))
sys.meta_path.insert(0, Watch())
importlib.import_module(sys.argv[1])
import torch
print(seen[0])
"""


def at_torchs_import(module: str, **given: str) -> str:
    surroundings = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    done = subprocess.run([sys.executable, "-c", SCRIPT, module], cwd=ROOT, env={**surroundings, **given},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["models", "training", "bench", "explainers"])
def test_it_is_set_before_torch_comes(module: str) -> None:
    assert at_torchs_import(module) == "10000"


def test_what_the_user_has_set_stands() -> None:
    assert at_torchs_import("models", GOMP_SPINCOUNT="7") == "7"
