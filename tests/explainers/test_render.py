"""Heat to bytes and to colour: nothing is stretched, zero stays zero, and what is not there is said."""
from __future__ import annotations

import numpy as np
import pytest

from explainers import Explanation, explain, render
from tests.toy import Linear


def spread(signed: bool) -> np.ndarray:
    """Ten thousand values; the 99th percentile of their sizes is known."""
    values = np.linspace(-1 if signed else 0, 1, 10_000, dtype=np.float32)
    return np.random.default_rng(0).permutation(values).reshape(100, 100)


@pytest.mark.parametrize("signed", [False, True])
def test_bytes_come_back_as_the_values_up_to_the_99th_percentile(signed: bool) -> None:
    heat = spread(signed)
    data, scale = render.quantise(heat, signed)
    assert scale == pytest.approx(np.percentile(np.abs(heat), 99)) and len(data) == heat.size
    raw = np.frombuffer(data, np.uint8).reshape(heat.shape).astype(float)
    back = (raw - 128) / 127 * scale if signed else raw / 255 * scale
    half_a_step = scale / (127 if signed else 255) / 2
    np.testing.assert_allclose(back, heat.clip(-scale, scale), atol=half_a_step + 1e-6)


def test_zero_is_exactly_the_middle_byte_and_sparse_heat_still_has_a_scale() -> None:
    heat = np.zeros((50, 50), np.float32)
    assert render.quantise(heat, True) == (bytes([128]) * 2500, 0.0)
    assert render.quantise(heat, False) == (bytes(2500), 0.0)
    heat[3, 4] = -2                            # fewer than one in a hundred: the percentile alone would be 0
    data, scale = render.quantise(heat, True)
    assert scale == 2 and data[3 * 50 + 4] == 1 and data.count(128) == 2499


def test_two_maps_on_one_scale_have_one_colour_for_one_value() -> None:
    weak, strong = np.full((4, 4), 0.5, np.float32), np.full((4, 4), 2, np.float32)
    strong[0, 0] = 0.5
    assert (render.colour(weak, True, 2.0)[1, 1] == render.colour(strong, True, 2.0)[0, 0]).all()
    assert (render.colour(weak, True)[1, 1] != render.colour(weak, True, 2.0)[1, 1]).any()


@pytest.mark.parametrize("name", render.SEQUENTIAL)
def test_sequential_palettes_grow_lighter_all_the_way(name: str) -> None:
    lightness = render.SEQUENTIAL[name] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(np.convolve(lightness, np.ones(9) / 9, "valid")) > 0).all()


@pytest.mark.parametrize("name", render.DIVERGING)
def test_diverging_palettes_are_pale_at_zero_and_differ_at_the_ends(name: str) -> None:
    palette = render.DIVERGING[name].astype(int)
    assert palette[127:129].min() > 235 and palette[[0, -1]].mean() < 110
    assert np.abs(palette[0] - palette[-1]).sum() > 90


def test_a_palette_of_the_other_kind_is_refused_with_those_of_this_one() -> None:
    with pytest.raises(ValueError, match="palette for signed maps must be one of blue-red, .*got 'inferno'"):
        render.colour(np.zeros((2, 2)), True, palette="inferno")


def test_the_overlay_colours_where_the_evidence_is_and_nowhere_else() -> None:
    frame = np.full((240, 320, 3), 90, np.uint8)
    e = explain(Linear(), frame, "grad_cam", "class:1")
    e.heat = np.zeros_like(e.heat)
    assert (render.overlay(frame, e)[:200] == 90).all()
    rows, columns = e.canvas.inside            # type: ignore[union-attr]
    e.heat[rows.start + 2, columns.start + 3] = 1
    drawn = np.abs(render.overlay(frame, e)[:200].astype(int) - 90).sum(2)
    y, x = np.unravel_index(drawn.argmax(), drawn.shape)
    assert 40 <= y < 60 and 60 <= x < 80       # cell (2, 3) of 20 x 20 pixels
    assert (drawn > 0).mean() < 0.05


def test_the_legend_tells_range_and_raw_maximum_or_that_there_is_nothing() -> None:
    heat = np.full((10, 10), -3, np.float32)
    e = Explanation(heat, signed=True, method="grad_cam", raw_max=3.0)
    assert render.legend(e) == "Grad-CAM: -3 to 3, max 3"
    assert render.legend(Explanation(heat * 0, method="grad_cam")) == "Grad-CAM: no evidence"


def test_a_frame_too_small_for_words_is_still_drawn() -> None:
    frame = np.full((20, 12, 3), 90, np.uint8)
    assert render.overlay(frame, explain(Linear(), frame, "grad_cam", "class:0")).shape == frame.shape


def test_drawing_in_strips_leaves_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (150, 110, 3), np.uint8)
    e = explain(Linear(), frame, "grad_cam", "class:0")
    whole = render.overlay(frame, e)
    monkeypatch.setattr(render, "STRIP", 1000)
    assert (render.overlay(frame, e) == whole).all()
