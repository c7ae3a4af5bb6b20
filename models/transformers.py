"""torchvision's vision transformers: split before the last block's attention, and asked where each looks."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.base import Features


def vit_split(net: Any) -> tuple[Any, Any, Any]:
    """A net's body, what makes one vector of its features, and the last layer.

    Only the class token is read in the end, so the patches are the map while the last block's attention can
    still gather them; behind its first norm, as pytorch-grad-cam advises. The class token is the rest.
    """
    *early, last = net.encoder.layers

    def body(x: Tensor) -> Features:
        tokens = _tokens(net, x)
        for block in early:
            tokens = block(tokens)
        side = net.image_size // net.patch_size
        patches = last.ln_1(tokens[:, 1:]).transpose(1, 2)         # the exporter knows no .mT
        return Features((patches.unflatten(2, (side, side)),), (tokens[:, :1],))

    def neck(features: Features) -> Tensor:
        token = features.rest[0]
        asks = last.ln_1(token)
        seen = torch.cat([asks, features.maps[0].flatten(2).mT], 1)
        gathered, _ = last.self_attention(asks, seen, seen, need_weights=False)
        return net.encoder.ln(_onward(last, token, gathered))[:, 0]

    return body, neck, net.heads.head


def vit_attention(net: Any, x: Tensor) -> tuple[Tensor, ...]:
    """Per layer NxHxTxT for normalised pictures: the softmax weights by which each token gathers all."""
    tokens, weights = _tokens(net, x), []
    for block in net.encoder.layers:
        asks = block.ln_1(tokens)
        gathered, shares = block.self_attention(asks, asks, asks, average_attn_weights=False)
        tokens = _onward(block, tokens, gathered)
        weights.append(shares)
    return tuple(weights)


def _tokens(net: Any, x: Tensor) -> Tensor:
    """NxTxC: the class token and the patches, each with its place."""
    patches = net._process_input(x)
    return torch.cat([net.class_token.expand(x.shape[0], -1, -1), patches], 1) + net.encoder.pos_embedding


def _onward(block: Any, tokens: Tensor, gathered: Tensor) -> Tensor:
    """A block's tokens once its attention has gathered for them."""
    tokens = tokens + gathered
    return tokens + block.mlp(block.ln_2(tokens))
