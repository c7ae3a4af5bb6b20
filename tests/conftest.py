"""What many tests share: loaded models, photographs, the data folder."""
from __future__ import annotations

import os

# Before torch comes: among TensorFlow, a server and a browser none of its threads should wait awake.
os.environ.setdefault("GOMP_SPINCOUNT", "0")

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import models
from models.base import Model
from serving import presets
from tests.toy import Linear

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SEEWHY_DATA") or ROOT.parent / "shared" / "data")


def pytest_report_header() -> str:
    if DATA.is_dir():
        return f"data: {DATA}"
    return f"data: no folder {DATA}; tests that need it are deselected (SEEWHY_DATA=FOLDER names another)"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if DATA.is_dir():
        return
    need = [item for item in items if "data" in getattr(item, "fixturenames", ())]
    if need:
        config.hook.pytest_deselected(items=need)
        items[:] = [item for item in items if item not in need]


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with labelled photographs and captions; tests that ask for it need it."""
    for part in ("imagenet", "flickr8k"):
        assert (DATA / part).is_dir(), f"{DATA} must hold a folder {part}; name the right one in SEEWHY_DATA"
    return DATA


def read_rgb(path: Path) -> np.ndarray:
    """A picture file as HxWx3 uint8 RGB."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert picture is not None, f"expected a picture at {path}"
    return picture


@pytest.fixture(scope="session")
def photographs() -> dict[str, np.ndarray]:
    """bus, zidane, cat, coffee and astronaut as HxWx3 uint8 RGB; nobody may write on them."""
    found = {name: path for name in presets.PRESETS if (path := presets.path(name))}
    assert len(found) == len(presets.PRESETS), f"expected {list(presets.PRESETS)}, got {list(found)}"
    pictures = {name: read_rgb(path) for name, path in found.items()}
    for picture in pictures.values():
        picture.flags.writeable = False
    return pictures


@pytest.fixture(scope="session")
def lite0() -> Model:
    """EfficientNet-Lite0 with its real weights."""
    return models.load("efficientnet-lite0")


@pytest.fixture(scope="session")
def tiny() -> Model:
    """YOLOv3-tiny with its real weights."""
    return models.load("yolov3-tiny")


@pytest.fixture(scope="session")
def captioner() -> Model:
    """EfficientNetV2-LSTM with its real weights."""
    return models.load("efficientnetv2-lstm")


@pytest.fixture
def linear() -> Iterator[Linear]:
    """A model whose answers are known on paper."""
    yield Linear()
