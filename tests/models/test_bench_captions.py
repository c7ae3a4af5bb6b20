"""The benchmark of the captions: its table and what it says about the goals."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import captions


def figures(bleu: float, cider: float) -> dict[str, float]:
    return {"BLEU-1": 0.6, "BLEU-2": 0.4, "BLEU-3": 0.3, "BLEU-4": bleu, "CIDEr": cider}


def test_goals_are_judged_on_three_beams_and_ours_against_the_baseline() -> None:
    ours, theirs = captions.MODELS
    found = {
        (ours, "greedy"): figures(0.0, 0.0),
        (ours, "beam 3"): figures(0.22, 0.5),
        (theirs, "beam 3"): figures(0.2, 0.6),
    }
    assert [row.met for row in captions.judged(found)] == [True, False, False, True, False]
    lines = captions.table(found).splitlines()
    assert len(lines) == 4 and lines[2].split()[-2:] == ["0.220", "0.500"]


def test_the_table_of_all_benchmarks_shows_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def scores(folder: Path, count: int) -> dict[tuple[str, str], dict[str, float]]:
        asked.append(count)
        return {(captions.MODELS[0], "beam 3"): figures(0.2, 0.5)}

    monkeypatch.setattr(captions, "scores", scores)
    rows = [*captions.rows(True), *captions.rows(False), *captions.long_rows()]
    assert asked == [50, 100, 1000]
    assert [row.met for row in rows] == [None, None, None, False, False]
    assert "0.600 0.400 0.300 0.200 0.500" in rows[0].note


def test_a_missing_picture_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions.models, "load", lambda name: None)
    with pytest.raises(captions.Refused, match="names gone.jpg"):
        captions.captions(captions.MODELS[0], tmp_path, ["gone.jpg"])


def test_a_folder_without_captions_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert captions.main(["--data", str(tmp_path)]) == 2
    assert "must hold a folder images/" in capsys.readouterr().err
