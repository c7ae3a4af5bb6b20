"""The way from frame to canvas and exactly back, and what parameters refuse."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from models.base import (
    BadInput,
    Canvas,
    Features,
    Parameter,
    Target,
    centre_crop,
    check_frame,
    checked,
    letterbox,
    squeeze,
)

SIZES = [(480, 640), (640, 480), (333, 517), (1080, 61), (61, 1080), (1, 300), (300, 1), (1, 1), (224, 224)]
WAYS: dict[str, Callable[[np.ndarray], Canvas]] = {
    "letterbox": lambda f: letterbox(f, 416),
    "letterbox to a stride": lambda f: letterbox(f, 416, stride=32),
    "centre_crop": lambda f: centre_crop(f, 224, 224 / 256),
    "squeeze": lambda f: squeeze(f, 224),
}
both = pytest.mark.parametrize("way", WAYS)
sizes = pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")


def grey(size: tuple[int, int], value: int = 0) -> np.ndarray:
    return np.full((*size, 3), value, np.uint8)


@both
@sizes
def test_boxes_come_back_exactly(way: str, size: tuple[int, int]) -> None:
    canvas = WAYS[way](grey(size))
    height, width = size
    boxes = np.array([[0, 0, width, height], [0.25 * width, 0.5 * height, 0.75 * width, 0.9 * height]])
    np.testing.assert_allclose(canvas.to_frame(canvas.to_canvas(boxes)), boxes, atol=1e-6)
    points = np.array([[3.5, 7.25], [0, 0]])
    np.testing.assert_allclose(canvas.to_canvas(canvas.to_frame(points)), points, atol=1e-6)


@sizes
def test_letterbox_shows_the_whole_frame_and_nothing_else(size: tuple[int, int]) -> None:
    canvas = letterbox(grey(size, 255), 416)
    rows, columns = canvas.inside
    white = (canvas.x[0] > 0.99).all(0).numpy()
    assert white[rows, columns].all()
    assert white.sum() == (rows.stop - rows.start) * (columns.stop - columns.start)
    np.testing.assert_allclose(canvas.area, (0, 0, size[1], size[0]), atol=1e-6)
    assert max(rows.stop - rows.start, columns.stop - columns.start) == 416


@pytest.mark.parametrize(("size", "padded"), [
    ((480, 640), (480, 640)), ((1080, 810), (640, 480)), ((720, 1280), (384, 640)), ((333, 517), (416, 640)),
    ((1080, 61), (640, 64)), ((61, 1080), (64, 640)), ((1, 300), (32, 640)), ((1, 1), (640, 640))])
def test_a_letterbox_with_a_stride_pads_to_its_next_multiple(size: tuple[int, int],
                                                             padded: tuple[int, int]) -> None:
    """As Ultralytics' predict does: what is missing is shared out, the odd pixel to the right and below."""
    canvas = letterbox(grey(size, 255), 640, stride=32)
    assert canvas.size == padded
    rows, columns = canvas.inside
    white = (canvas.x[0] > 0.99).all(0).numpy()
    assert white[rows, columns].all()
    assert white.sum() == (rows.stop - rows.start) * (columns.stop - columns.start)
    for part, length in ((rows, padded[0]), (columns, padded[1])):
        assert 0 <= length - part.stop - part.start <= 1


@both
@sizes
def test_the_shown_area_lies_in_the_frame(way: str, size: tuple[int, int]) -> None:
    left, top, right, bottom = WAYS[way](grey(size)).area
    slack = 1e-6
    assert -slack <= left < right <= size[1] + slack
    assert -slack <= top < bottom <= size[0] + slack


def test_centre_crop_shows_the_middle_square() -> None:
    assert centre_crop(grey((200, 400)), 100, 0.5).area == (150, 50, 250, 150)


def test_squeeze_scales_each_side_by_itself() -> None:
    canvas = squeeze(grey((100, 400)), 200)
    assert canvas.scale == (0.5, 2.0)
    np.testing.assert_allclose(canvas.to_canvas(np.array([[400.0, 100.0]])), [[200, 200]])


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (333, 517)], ids=str)
@both
def test_a_spot_is_found_where_it_was_painted(way: str, size: tuple[int, int]) -> None:
    """A white square painted on the frame: the canvas is white where to_canvas says it is."""
    frame = grey(size)
    y, x, side = size[0] // 2, size[1] // 2, 40
    frame[y:y + side, x:x + side] = 255
    canvas = WAYS[way](frame)
    bright = np.argwhere(canvas.x[0, 0].numpy() > 0.5)
    found = np.array([[*bright.min(0)[::-1], *(bright.max(0) + 1)[::-1]]], float)
    if way.startswith("letterbox"):                     # its padding is grey, not bright
        assert (bright >= [canvas.inside[0].start, canvas.inside[1].start]).all()
    np.testing.assert_allclose(canvas.to_frame(found), [[x, y, x + side, y + side]], atol=2.5)


@both
@sizes
def test_a_map_covers_what_was_shown_and_is_zero_elsewhere(way: str, size: tuple[int, int]) -> None:
    canvas = WAYS[way](grey(size))
    there = canvas.map_on_frame(np.ones(canvas.size, np.float32))
    left, top, right, bottom = (round(v) for v in canvas.area)
    assert there.shape == size
    assert there.sum() == pytest.approx(max(1, right - left) * max(1, bottom - top))
    assert there[top:max(bottom, top + 1), left:max(right, left + 1)].min() == pytest.approx(1)


def test_canvas_is_rgb_between_zero_and_one() -> None:
    frame = grey((50, 80))
    frame[..., 0], frame[..., 1] = 255, 51
    canvas = squeeze(frame, 32)
    assert canvas.x.shape == (1, 3, 32, 32) and canvas.x.dtype == torch.float32
    np.testing.assert_allclose(canvas.x[0, :, 5, 5].cpu(), [1, 0.2, 0], atol=1e-6)


@pytest.mark.parametrize("frame", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8),
                                   np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8)])
def test_what_is_no_frame_is_refused_by_shape_and_type(frame: np.ndarray) -> None:
    with pytest.raises(BadInput, match=r"HxWx3 uint8 RGB, got shape \(.*\) of "):
        check_frame(frame)


@pytest.mark.parametrize(("spec", "value", "sentence"), [
    ((25, 5, 200), 3, "steps must be a whole number from 5 to 200, got 3"),
    ((25, 5, 200), 7.5, "steps must be a whole number from 5 to 200, got 7.5"),
    ((25, 5, 200), "many", "steps must be a whole number from 5 to 200, got 'many'"),
    ((25, 5, 200), float("nan"), "steps must be a whole number from 5 to 200, got nan"),
    ((25, 5, 200), None, "steps must be a whole number from 5 to 200, got None"),
    ((0.5, 0.0, 1.0), 1.01, "steps must be a number from 0 to 1, got 1.01"),
    (("black", "blur"), "red", "steps must be one of black, blur, got 'red'"),
    (True, "perhaps", "steps must be true or false, got 'perhaps'"),
])
def test_a_parameter_refuses_in_a_sentence(spec: object, value: object, sentence: str) -> None:
    with pytest.raises(BadInput) as problem:
        Parameter.declare("steps", spec).check(value)
    assert str(problem.value) == sentence


@pytest.mark.parametrize(("spec", "value", "result"), [
    ((25, 5, 200), "30", 30), ((25, 5, 200), 30.0, 30), ((0.5, 0.0, 1.0), "0.25", 0.25),
    (("black", "blur"), "blur", "blur"), (True, "false", False), (False, 1, True),
])
def test_a_parameter_takes_words_of_the_command_line(spec: object, value: object, result: object) -> None:
    got = Parameter.declare("p", spec).check(value)
    assert got == result and type(got) is type(result)


def test_defaults_are_valid_and_unknown_names_are_refused_with_the_known() -> None:
    declared = (Parameter.declare("steps", (25, 5, 200)), Parameter.declare("baseline", ("black", "blur")))
    assert checked(declared, {}, "It") == {"steps": 25, "baseline": "black"}
    assert checked(declared, {"steps": "6"}, "It")["steps"] == 6
    with pytest.raises(BadInput, match="It has no parameter 'step'; it has steps, baseline"):
        checked(declared, {"step": 6}, "It")


def test_features_change_alike() -> None:
    features = Features((torch.arange(6.0).view(3, 2, 1, 1),), (torch.arange(3.0).view(3, 1),))
    middle = features.each(lambda t: t[1:2])
    assert [t.flatten().tolist() for t in middle.tensors] == [[2, 3], [1]]
    assert len(middle.maps) == len(middle.rest) == 1 and Features().tensors == ()


def test_a_rival_is_the_same_question_about_another_class() -> None:
    """Whatever was asked stays: a side is compared with a side, and what it is held against is the same."""
    assert Target(index=3, anchor=9, part="left").rival(5) == Target(index=5, anchor=9, part="left")
    assert Target(index=3, versus=4).rival(5) == Target(index=5, versus=4)
    word = Target(index=7, position=1, words=(4, 7, 9))
    assert word.rival(8) == Target(index=8, position=1, words=(4, 8, 9))
