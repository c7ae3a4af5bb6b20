"""Training end to end on eight drawn pictures, stopped and gone on with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.captioner import bridge, encoder
from models.captioner import decoder as shown
from models.captioner.model import arrays_of
from training.captioner import encoders, learner, maps, teach, train, tune

COLOURS = {"red": (220, 40, 30), "blue": (30, 50, 220)}
SHAPES = ("circle", "square")
SMALL = {"picture": 16, "word": 12, "units": 14, "attention": 8}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shapes in two colours for each split, each with two captions."""
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "images").mkdir()
    lines = []
    for split in ("train", "dev"):
        for colour, rgb in COLOURS.items():
            for shape in SHAPES:
                picture = np.full((224, 224, 3), 230 if split == "train" else 215, np.uint8)
                if shape == "circle":
                    cv2.circle(picture, (112, 112), 80, rgb, -1)
                else:
                    cv2.rectangle(picture, (40, 40), (184, 184), rgb, -1)
                name = f"{split}_{colour}_{shape}.png"
                cv2.imwrite(str(folder / "images" / name), picture[:, :, ::-1])
                lines += [
                    f"{split}\t{name}\tA {colour} {shape} .",
                    f"{split}\t{name}\tThere is a {colour} {shape}",
                ]
    (folder / "captions.tsv").write_text("\n".join(lines) + "\n")
    return folder


QUICK = train.Settings(encoder="lite0", least=1, views=2, epochs=30, reward_epochs=2, rate=3e-3,
                       patience=40)  # fmt: skip


def test_drawn_pictures_are_learnt(drawn: Path, tmp_path: Path) -> None:
    figures = train.run(drawn, tmp_path / "work", tmp_path / "out", QUICK)
    assert figures["lite0_decoder.npz greedy"]["CIDEr"] > 3, (
        "the colours and shapes of the dev pictures must be named"
    )
    files = {p.name for p in (tmp_path / "out").iterdir()}
    assert files == {"lite0_decoder.npz", "vocabulary.txt", "MODEL_CARD.md"}
    words = (tmp_path / "out" / "vocabulary.txt").read_text().split("\n")
    assert words[:4] == list(train.FRAME) and "red" in words and "." not in words
    assert shown.sizes_of(arrays_of(tmp_path / "out" / "lite0_decoder.npz")).words == len(words) - 1
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert (
        "`train`: 4 pictures" in card
        and "research and education" in card
        and "| lite0_decoder.npz beam 3 |" in card
    )
    # Called again, nothing is trained again.
    assert train.run(drawn, tmp_path / "work", tmp_path / "out", QUICK) == figures


def test_a_stopped_training_goes_on_as_if_it_had_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    maps = rng.random((6, 4, 24)).astype(np.float16)
    captions = [[[4 + i, 5, 6], [7, 4 + i]] for i in range(6)]
    exam = teach.Exam(maps, [["a b c"]] * 6, [f"w{i}" for i in range(12)])

    def learn(name: str, reward: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(5)
        decoder = learner.Decoder(learner.Sizes(12, 24, **SMALL))
        teach.teach(decoder, teach.Lesson([maps], captions), exam, tmp_path / name, epochs=4, rate=1e-3,
                    reward=reward, batch=3, patience=9, quiet=True)  # fmt: skip
        saved = torch.load(tmp_path / name, weights_only=False)
        return {**saved["weights"], **{f"mean {n}": w for n, w in saved["mean"].items()}}

    for reward in (False, True):
        whole = learn(f"whole{reward}", reward)
        examine, calls = teach.examine, []

        def interrupted(*arguments: object, **options: object) -> object:
            calls.append(1)  # noqa: B023
            if len(calls) == 3:  # noqa: B023
                raise KeyboardInterrupt
            return examine(*arguments, **options)  # type: ignore[arg-type]  # noqa: B023

        with monkeypatch.context() as patch:
            patch.setattr(teach, "examine", interrupted)
            with pytest.raises(KeyboardInterrupt):
                learn(f"parts{reward}", reward)
        parts = learn(f"parts{reward}", reward)
        for name, weight in whole.items():
            assert torch.equal(weight, parts[name]), name


def test_reward_raises_what_is_rewarded() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    maps = rng.random((4, 4, 24)).astype(np.float16)
    words = [*train.FRAME, "a", "b", "c", "d"]
    captions = [[[4, 5]], [[6, 7]], [[5, 6]], [[7, 4]]]
    decoder = learner.Decoder(learner.Sizes(8, 24, **SMALL), dropout=0.0)
    cider = teach.Cider([[teach.as_text(c, words) + " <end>" for c in own] for own in captions])
    optimiser = torch.optim.Adam(decoder.parameters(), lr=1e-2)
    got = []
    for _ in range(80):
        loss, reward = teach.reward_loss(
            decoder, teach.some(maps, slice(0, 4)), np.arange(4), cider, words, 5
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        got.append(reward)
    assert np.mean(got[-10:]) > 2 * np.mean(got[:10]) + 0.5


def test_ours_runs_through_all_its_phases(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.captioner import distill

    small = tuple(replace(p, minutes=1e-4, batch=4) for p in distill.PHASES)
    monkeypatch.setattr(distill, "PHASES", small)
    monkeypatch.setattr(distill, "FRONT_SIDE", 64)
    monkeypatch.setattr(distill, "INHERIT", (4, 64))
    monkeypatch.setattr(distill, "VIEWS", 2)
    settings = train.Settings(encoder="ours", least=1, views=2, epochs=1, tune_epochs=1, reward_epochs=1)
    train.run(drawn, tmp_path / "work", tmp_path / "out", settings)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "decoder.npz", "lite0_decoder.npz", "encoder.npz", "vocabulary.txt", "MODEL_CARD.md",
    }  # fmt: skip
    assert "distillation, rest" in (tmp_path / "out" / "MODEL_CARD.md").read_text()
    tuned = arrays_of(tmp_path / "out" / "encoder.npz")
    encoder.filled(encoder.EfficientNetV2B0(), tuned)
    for name, before in arrays_of(tmp_path / "work" / "encoder.npz").items():
        learns = name.startswith(("block6", "top")) and not name.endswith(("moving_mean", "moving_variance"))
        if not learns:
            assert np.array_equal(before, tuned[name]), f"{name} was to rest"
        elif name == "block6h_project_conv.kernel":
            assert not np.array_equal(before, tuned[name]), f"{name} was to learn"


def test_the_last_stage_begins_as_the_encoders_own() -> None:
    torch.manual_seed(0)
    student = encoders.Student().eval()
    encoder = maps.Encoder("decoder.npz", maps.torch_maps(student), 0.5, 0.1, student)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    stage = tune.LastStage(encoder).train()
    with torch.no_grad():
        found = stage(torch.from_numpy(tune.before_last(student)(images))).numpy()
    np.testing.assert_allclose(found, encoder.maps(images), atol=1e-5)
    assert not any(module.training for module in stage.modules())


@pytest.mark.parametrize(
    ("broken", "said"),
    (
        (None, "must hold a folder images/"),
        ("train\tonly two\n", "line 1 of captions.tsv must have 3 columns"),
        ("train\ta.png\ta dog\n", "no line of the split 'dev'"),
        ("train\ta.png\ta dog\ndev\tb.png\ta dog\n", "captions.tsv names a.png, which is not in"),
    ),
)
def test_bad_data_is_refused_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: str | None, said: str
) -> None:
    if broken is not None:
        (tmp_path / "images").mkdir()
        (tmp_path / "captions.tsv").write_text(broken)
    code = train.main(["--data", str(tmp_path), "--work", str(tmp_path / "work"), "--encoder", "lite0"])
    assert code == 2
    assert said in capsys.readouterr().err


def test_an_unknown_encoder_is_refused_with_a_sentence(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["--data", str(drawn), "--work", str(tmp_path), "--encoder", "b9"]) == 2
    assert "there is no b9" in capsys.readouterr().err


def test_official_weights_out_of_reach_are_said_so(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*arguments: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(bridge, "build_encoder", offline)
    assert train.main(["--data", str(drawn), "--work", str(tmp_path), "--encoder", "b0"]) == 2
    assert "EfficientNetV2B0's official weights could not be fetched (no route)" in capsys.readouterr().err
