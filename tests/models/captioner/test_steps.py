"""A word at a time in ONNX Runtime is what torch does, and nothing else is used."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from models.captioner import decoder
from models.captioner.search import beam_search
from models.captioner.steps import Speaker, agree

WORDS = 4, 5, 6, 4, 7, 6, 5, 4


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("models.store.cache_folder", lambda: tmp_path)
    return tmp_path / "compiled"


@pytest.fixture
def drawn_decoder(drawn: dict[str, np.ndarray]) -> decoder.Decoder:
    return decoder.from_arrays(drawn)


@pytest.fixture
def speaker(drawn_decoder: decoder.Decoder) -> Iterator[Speaker]:
    made = Speaker(drawn_decoder)
    made.compile()
    assert made.state == "ONNX Runtime" and made.bytes > 0
    yield made


def maps(pictures: int = 1, places: int = 49, seed: int = 1) -> torch.Tensor:
    return 3 * torch.rand(pictures, places, 24, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("places", [49, 30])
def test_a_caption_and_its_gradients_are_those_of_torch(speaker: Speaker, drawn_decoder: decoder.Decoder,
                                                        places: int) -> None:
    pictures = drawn_decoder.look(maps(2, places))
    with torch.no_grad():
        agree(speaker.follow(pictures, WORDS), drawn_decoder.follow(pictures, WORDS))
    for n in range(2):
        one = decoder.Picture(*(part[n:n + 1] for part in pictures))
        agree(speaker.channel_gradients(one, WORDS), drawn_decoder.channel_gradients(one, WORDS))
        agree(speaker.channel_gradients(one, WORDS[:1]), drawn_decoder.channel_gradients(one, WORDS[:1]))


def test_the_search_finds_the_same(speaker: Speaker, drawn_decoder: decoder.Decoder) -> None:
    pictures = drawn_decoder.look(maps(3))
    with torch.no_grad():
        ours, theirs = (beam_search(lambda words, memory: who.step(pictures, words, memory),  # noqa: B023
                                    who.first(pictures), start=decoder.START, end=decoder.END)
                        for who in (speaker, drawn_decoder))
    assert [[s.words for s in of_each] for of_each in ours] == [[s.words for s in each] for each in theirs]


def test_what_is_to_be_differentiated_goes_through_torch(speaker: Speaker) -> None:
    leaf = maps().requires_grad_()
    speaker.follow(speaker.look(leaf), WORDS)[0, 1, 5].backward()
    assert leaf.grad is not None and leaf.grad.abs().max() > 0


@pytest.mark.parametrize("spoilt", [b"nothing of the kind", b""])
def test_a_spoilt_file_is_made_anew(speaker: Speaker, drawn_decoder: decoder.Decoder, folder: Path,
                                    spoilt: bytes) -> None:
    files = list(folder.iterdir())
    assert len(files) == 2
    for file in files:
        file.write_bytes(spoilt)
    again = Speaker(drawn_decoder)
    again.compile()
    assert again.state == "ONNX Runtime" and all(f.stat().st_size > 1000 for f in files)


def test_one_way_in_the_others_place_is_found_out(speaker: Speaker, drawn_decoder: decoder.Decoder,
                                                  folder: Path) -> None:
    there, back = folder.iterdir()
    there.write_bytes(back.read_bytes())
    again = Speaker(drawn_decoder)
    again.compile()
    assert again.state == "ONNX Runtime"
    seen = drawn_decoder.look(maps())
    agree(again.channel_gradients(seen, WORDS), drawn_decoder.channel_gradients(seen, WORDS))
