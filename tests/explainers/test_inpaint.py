"""Fills: nothing but the hole changes, what must fit fits, and PatchMatch knows texture."""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from bench.whatif import psnr, textured_holes
from explainers import patchmatch
from explainers.inpaint import FILLS, fill
from models.base import BadInput
from serving import edits


def disc(shape: tuple[int, ...], share: float = 0.1) -> np.ndarray:
    """A disc in the middle that covers this share of the picture."""
    height, width = shape[:2]
    y, x = np.ogrid[:height, :width]
    return (y - height / 2) ** 2 + (x - width / 2) ** 2 < share * height * width / np.pi


def png(mask: np.ndarray) -> bytes:
    return cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes()


@pytest.fixture(scope="module")
def coffee(photographs: dict[str, np.ndarray]) -> np.ndarray:
    return cv2.resize(photographs["coffee"], (300, 200), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("name", FILLS)
@pytest.mark.parametrize("preview", (False, True))
def test_only_the_hole_changes(name: str, preview: bool, coffee: np.ndarray) -> None:
    mask = disc(coffee.shape)
    before = coffee.copy()
    filled = fill(coffee, mask, name, preview=preview)
    assert filled.dtype == np.uint8 and filled.shape == coffee.shape
    assert (filled[~mask] == coffee[~mask]).all()
    assert (filled[mask] != coffee[mask]).any()
    assert (coffee == before).all()


@pytest.mark.parametrize("name", FILLS)
def test_the_hole_does_not_show_through(name: str, coffee: np.ndarray) -> None:
    """What was in the hole must not matter, except to the blur, which says so."""
    mask = disc(coffee.shape)
    other = coffee.copy()
    other[mask] = (255, 0, 255)
    same = (fill(coffee, mask, name) == fill(other, mask, name)).all()
    assert same == (name != "blur")


@pytest.mark.parametrize("name", [n for n in FILLS if n != "blur"])
def test_one_colour_stays_one_colour(name: str) -> None:
    flat = np.full((80, 100, 3), (30, 120, 210), np.uint8)
    filled = fill(flat, disc(flat.shape), name)
    assert np.abs(filled.astype(int) - flat).max() <= 4         # Telea itself drifts by three


def test_patch_match_continues_a_chequerboard() -> None:
    """A pattern that repeats exactly is put back; Telea cannot."""
    y, x = np.mgrid[:160, :160]
    board = np.where(((y // 8 + x // 8) % 2)[..., None] == 1, (240, 230, 200), (20, 60, 90)).astype(np.uint8)
    mask = disc(board.shape, 0.06)
    assert psnr(fill(board, mask, "patch_match"), board, mask) > 25
    assert psnr(fill(board, mask, "telea"), board, mask) < 15


def test_the_same_seed_gives_the_same_fill(coffee: np.ndarray) -> None:
    mask = disc(coffee.shape)
    first = fill(coffee, mask, "patch_match", {"seed": 3})
    assert (first == fill(coffee, mask, "patch_match", {"seed": 3})).all()
    assert (first != fill(coffee, mask, "patch_match", {"seed": 4})).any()


@pytest.mark.parametrize("where", ("corner", "border", "all but a strip", "one pixel"))
def test_holes_of_every_kind(where: str, coffee: np.ndarray) -> None:
    mask = np.zeros(coffee.shape[:2], bool)
    if where == "corner":
        mask[:60, :60] = True
    elif where == "border":
        mask[[0, 1, -1], :] = mask[:, [0, 1, -1]] = True
    elif where == "all but a strip":
        mask[:, 2:] = True
    else:
        mask[100, 100] = True
    for name in FILLS:
        filled = fill(coffee, mask, name)
        assert (filled[~mask] == coffee[~mask]).all(), name


def test_nothing_whole_left_to_copy_is_filled_otherwise(coffee: np.ndarray) -> None:
    mask = np.ones(coffee.shape[:2], bool)
    mask[:, :2] = False
    assert patchmatch.complete(coffee, mask) is None
    assert (fill(coffee, mask, "patch_match")[:, 100] == fill(coffee, mask, "telea")[:, 100]).all()


def test_patch_match_beats_telea_by_a_decibel_on_texture(data: Path) -> None:
    """Mean over the 20 photographs whose texture recurs best; the rule is textured_holes'."""
    ours, telea = [], []
    for picture, mask in textured_holes(data / "imagenet", 20):
        ours.append(psnr(fill(picture, mask, "patch_match"), picture, mask))
        telea.append(psnr(fill(picture, mask, "telea"), picture, mask))
    assert len(ours) == 20
    assert np.mean(ours) >= np.mean(telea) + 1, f"PatchMatch {np.mean(ours):.2f}, Telea {np.mean(telea):.2f}"


@pytest.mark.parametrize(("mask", "says"), (
    (np.zeros((200, 300), bool), "the mask is empty"),
    (np.ones((200, 300), bool), "covers the whole picture"),
    (np.ones((20, 30), bool), "as large as the picture, 300 x 200, got 30 x 20"),
))
def test_masks_that_cannot_be(mask: np.ndarray, says: str, coffee: np.ndarray) -> None:
    with pytest.raises(BadInput, match=says):
        fill(coffee, mask)
    with pytest.raises(BadInput, match=says):
        edits.apply(coffee, png(mask), "telea")


def test_what_else_is_refused(coffee: np.ndarray) -> None:
    good = png(disc(coffee.shape))
    for mask, name, params, picture, says in (
            (good, "magic", {}, None, "there is no fill 'magic'; there are patch_match, telea"),
            (good, "telea", {"radius": 99}, None, "radius must be a whole number from 1 to 30, got 99"),
            (good, "telea", {"patch": 7}, None, "Telea has no parameter 'patch'"),
            (b"", "telea", {}, None, "the mask is empty"),
            (b"\xff\xd8" + bytes(60), "telea", {}, None, "must be a PNG"),
            (good[:60], "telea", {}, None, "broken PNG"),
            (good + bytes(edits.MASK_BYTES), "telea", {}, None, "at most 2,000,000 bytes"),
            (good, "telea", {}, "0123456789abcdef", "drawn on another picture")):
        with pytest.raises(BadInput, match=says):
            edits.apply(coffee, mask, name, params, picture=picture)
    kept = edits.apply(coffee, good, "telea", picture=edits.fingerprint(coffee))
    assert kept.shape == coffee.shape


def test_a_fingerprint_is_the_pictures_own(coffee: np.ndarray) -> None:
    other = coffee.copy()
    other[5, 5, 0] ^= 1
    names = {edits.fingerprint(p) for p in (coffee, coffee.copy(), other, coffee.reshape(300, 200, 3))}
    assert len(names) == 3 and all(len(n) == 16 for n in names)


def test_the_page_can_build_its_controls() -> None:
    for described in edits.describe():
        assert {"name", "title", "shows", "parameters"} <= set(described)
        for parameter in described["parameters"]:
            assert parameter["low"] <= parameter["default"] <= parameter["high"]
