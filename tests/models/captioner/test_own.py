"""A person's own captioner: the two-input layout in both file formats, and every way it may not fit."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from explainers import Look, explain
from models.base import BadInput, Model
from models.captioner import bridge, own
from tests.toy import asked

NAME = "own-captioner"
WORDS = ("startseq", "endseq", "a", "dog", "runs")      # the file counts from 1, as Keras' Tokenizer does


def two_inputs(channels: int = 1280, longest: int = 6, words: int = 6, mask: bool = True) -> Any:
    keras = bridge.keras
    keras.utils.set_random_seed(0)
    features = keras.Input((channels,), name="features")
    said = keras.Input((longest,), name="said", dtype="int32")
    seen = keras.layers.Dense(8, activation="relu")(features)
    heard = keras.layers.LSTM(8)(keras.layers.Embedding(words, 8, mask_zero=mask)(said))
    out = keras.layers.Dense(words, activation="softmax")(keras.layers.add([seen, heard]))
    return keras.Model([features, said], out)


def brought(file: Path, vocabulary: Path) -> tuple[models.Own]:
    """What a person says with --captioner FILE --vocab FILE."""
    return (models.Own("models.captioner", (file, vocabulary)),)


def loaded(file: Path, vocabulary: Path) -> Model:
    return models.load(NAME, own=brought(file, vocabulary))


@pytest.fixture
def vocabulary_file(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return path


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The official ImageNet weights are out of reach here; ours stand in."""
    build = bridge.build_encoder

    def offline(name: str = "EfficientNetV2B0", weights: str | None = None, side: int = 224) -> Any:
        if weights:
            raise OSError("no network")
        return build(name, weights, side)

    monkeypatch.setattr(bridge, "build_encoder", offline)


@pytest.fixture
def ready_encoder(captioner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder that is already there, where building another would show nothing new."""
    monkeypatch.setattr(own, "_sight", lambda channels, progress: (captioner.sight, "the one at hand"))


def test_an_h5_file_speaks(tmp_path: Path, vocabulary_file: Path, ready_encoder: None,
                           photographs: dict[str, np.ndarray]) -> None:
    two_inputs(mask=False).save(tmp_path / "mine.h5")      # Keras 3 cannot read back masks from .h5
    mine = loaded(tmp_path / "mine.h5", vocabulary_file)
    words = [w.word for w in Look(mine, photographs["cat"]).prediction.words]
    assert words and set(words) <= {"a", "dog", "runs"}


def test_it_speaks_and_is_explained(tmp_path: Path, vocabulary_file: Path,
                                    photographs: dict[str, np.ndarray]) -> None:
    net = two_inputs()
    net.save(tmp_path / "mine.keras")
    mine = loaded(tmp_path / "mine.keras", vocabulary_file)
    assert "our own EfficientNetV2-B0" in mine.info.note
    look = Look(mine, photographs["cat"], {"longest": 5})
    words = [w.word for w in look.prediction.words]
    assert words and set(words) <= {"a", "dog", "runs"}
    target = asked("word:2/text:a dog runs", look)
    pooled = look.features.maps[0].mean((2, 3)).numpy()
    said = np.array([[0, 0, 0, 1, 3, 4]])                    # start, a, dog
    by_keras = float(np.log(np.asarray(net([pooled, said]))[0, 5]))
    assert float(mine.score(look.features, target)) == pytest.approx(by_keras, abs=1e-4)
    assert not explain(mine, photographs["cat"], "saliency", "word:0/text:a dog").empty
    together = explain(mine, photographs["cat"], "word_maps", "caption/text:a dog runs").maps["2 runs"]
    alone = explain(mine, photographs["cat"], "grad_cam", "word:2/text:a dog runs").heat
    assert np.abs(together - alone).max() <= 1e-3 * max(alone.max(), 1e-9)


@pytest.mark.parametrize(("options", "sentence"), [
    ({"channels": 1000}, "features input .* has length 1000; there is an encoder for 1280"),
    ({"words": 9}, "tells 9 words apart, and the vocabulary has 5 lines"),
    ({"channels": 2048}, "length 2048 come from InceptionV3, .* could not be fetched: no network"),
])
def test_what_does_not_fit_is_said(tmp_path: Path, vocabulary_file: Path, options: dict[str, Any],
                                   sentence: str) -> None:
    two_inputs(**options).save(tmp_path / "mine.keras")
    with pytest.raises(BadInput, match=sentence):
        loaded(tmp_path / "mine.keras", vocabulary_file)


def test_other_layouts_and_files_are_refused(tmp_path: Path, vocabulary_file: Path) -> None:
    keras = bridge.keras
    one = keras.Input((1280,))
    keras.Model(one, keras.layers.Dense(6)(one)).save(tmp_path / "one.keras")
    with pytest.raises(BadInput, match="must have two inputs, features and words so far, got 1"):
        loaded(tmp_path / "one.keras", vocabulary_file)
    (tmp_path / "broken.h5").write_bytes(b"not a model")
    with pytest.raises(BadInput, match="broken.h5 could not be loaded as a Keras model"):
        loaded(tmp_path / "broken.h5", vocabulary_file)
    two_inputs().save(tmp_path / "mine.keras")
    vocabulary_file.write_text("a\ndog\nruns\ncat\nsnow\n")
    with pytest.raises(BadInput, match="none that marks the start of a caption"):
        loaded(tmp_path / "mine.keras", vocabulary_file)


def test_code_in_a_file_is_not_run(tmp_path: Path, vocabulary_file: Path) -> None:
    keras = bridge.keras
    features, said = keras.Input((1280,)), keras.Input((6,), dtype="int32")
    both = keras.layers.Lambda(lambda x: x * 1.0, output_shape=(6,))(keras.layers.Dense(6)(features))
    keras.Model([features, said], both).save(tmp_path / "code.keras")
    with pytest.raises(BadInput, match="code.keras could not be loaded"):
        loaded(tmp_path / "code.keras", vocabulary_file)


def test_it_is_offered_in_the_catalog(tmp_path: Path, vocabulary_file: Path, ready_encoder: None) -> None:
    with pytest.raises(BadInput, match="there is no file"):
        models.catalog(brought(tmp_path / "missing.h5", vocabulary_file))
    with pytest.raises(BadInput, match="must be a .h5 or .keras file"):
        models.catalog(brought(vocabulary_file, vocabulary_file))
    two_inputs().save(tmp_path / "mine.keras")
    own = brought(tmp_path / "mine.keras", vocabulary_file)
    assert models.catalog(own)[NAME].title == "Own captioner (mine)"
    assert models.load(NAME, own=own).info.name == NAME
    assert models.default("caption", own) == "efficientnetv2-lstm"
    assert NAME not in models.catalog()
