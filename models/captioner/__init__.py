"""EfficientNetV2-LSTM: captions, word by word; TensorFlow is imported for a user's own captioner alone."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from models import Own, entries
from models.info import BadInput, ModelInfo, Progress, silent

if TYPE_CHECKING:
    from models.captioner.model import CaptionModel

WEIGHTS = Path(__file__).parent / "weights"
CATALOG = entries.of("models.captioner")


def offer(own: Own) -> ModelInfo:
    """The catalog's entry for a user's own captioner (--captioner FILE --vocab FILE)."""
    if len(own.files) != 2:
        raise BadInput(f"a captioner is two files, the net and its vocabulary, got {len(own.files)}")
    for path, what in zip(own.files, ("captioner", "vocabulary"), strict=True):
        if not path.is_file():
            raise BadInput(f"there is no file {str(path)!r} to load as the {what}")
    file = own.files[0]
    if file.suffix not in (".h5", ".keras"):
        raise BadInput(f"a captioner must be a .h5 or .keras file, got {file.name!r}")
    return ModelInfo("own-captioner", "caption", f"Own captioner ({file.stem})", False,
                     round(file.stat().st_size / 1e6, 1), "your own", file.name,
                     settings=entries.CAPTION_SETTINGS)


def load_own(own: Own, info: ModelInfo, progress: Progress = silent) -> CaptionModel:
    """That captioner, ready to look."""
    progress("TensorFlow", 0, 3)
    from models.captioner.own import load as load_files

    net, vocabulary = own.files
    return load_files(info, net, vocabulary, progress)


def load(name: str, progress: Progress = silent) -> CaptionModel:
    """A captioner of the catalog, ready to look."""
    from models.captioner import model

    return model.load(CATALOG[name], WEIGHTS, progress)
