"""Attention rollout on matrices small enough to multiply by hand."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import explainers
from explainers.attention import rollout
from models.base import BadInput, Model
from tests.toy import Linear


def layer(rows: list[list[float]]) -> Tensor:
    """One head's attention, one picture: 1x1xTxT."""
    return torch.tensor(rows)[None, None]


def test_who_looks_only_at_themselves_keep_themselves() -> None:
    torch.testing.assert_close(rollout([layer(torch.eye(3).tolist())] * 4), torch.tensor([[1., 0., 0.]]))


def test_one_layer_is_half_residual_and_half_attention() -> None:
    shares = layer([[.2, .3, .5], [0., 1., 0.], [0., 0., 1.]])
    torch.testing.assert_close(rollout([shares]), torch.tensor([[.6, .15, .25]]))


def test_two_layers_by_hand() -> None:
    """The first row of (B + I)/2 (A + I)/2: (.5, .5) times the rows (.75, .25) and (.5, .5)."""
    first, second = layer([[.5, .5], [1., 0.]]), layer([[0., 1.], [0., 1.]])
    torch.testing.assert_close(rollout([first, second]), torch.tensor([[.625, .375]]))
    torch.testing.assert_close(rollout([second, first]), torch.tensor([[.375, .625]]))


def test_heads_count_alike_and_pictures_apart() -> None:
    one, other = layer([[1., 0.], [0., 1.]]), layer([[0., 1.], [0., 1.]])
    both = torch.cat([one, other], 1)
    got = rollout([torch.cat([both, torch.cat([other, other], 1)])])
    torch.testing.assert_close(got, torch.tensor([[.75, .25], [.5, .5]]))


def test_uniform_attention_in_closed_form() -> None:
    """After L layers of looking at all T tokens, the class token holds 2^-L + (1 - 2^-L)/T of itself."""
    tokens, depth = 5, 3
    got = rollout([torch.full((1, 2, tokens, tokens), 1 / tokens)] * depth)[0]
    own = 2.0 ** -depth
    torch.testing.assert_close(got, torch.tensor([own + (1 - own) / tokens] + [(1 - own) / tokens] * 4))


class Gazing(Linear):
    """Its one layer's class token looks at one patch of a 4x4 grid: second row, fourth column."""

    offers = Linear.offers | {"attention"}

    def attention(self, x: Tensor) -> tuple[Tensor, ...]:
        shares = torch.eye(17, device=x.device).repeat(len(x), 2, 1, 1)
        shares[:, :, 0] = 0
        shares[:, :, 0, 1 + 1 * 4 + 3] = 1
        return (shares,)


def test_the_map_is_the_grid_of_patches_enlarged() -> None:
    frame = np.full((16, 16, 3), 90, np.uint8)
    e = explainers.explain(Gazing(), frame, "attention_rollout", "class:1")
    assert e.heat.shape == (16, 16) and e.raw_max == pytest.approx(0.5 * 0.875)
    assert e.heat[4:8, 12:].min() > 0.1 and not e.heat[10:].any() and not e.heat[:, :8].any()
    other = explainers.explain(Gazing(), frame, "attention_rollout", "class:2")
    np.testing.assert_array_equal(other.heat, e.heat)


def test_a_model_without_attention_is_told_which_has_some(lite0: Model) -> None:
    with pytest.raises(BadInput, match="EfficientNet-Lite0 has no attention; take a vision transformer"):
        explainers.explain(lite0, np.zeros((64, 64, 3), np.uint8), "attention_rollout")
