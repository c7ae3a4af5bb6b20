"""Where a vision transformer's layers look, followed from the class token back to the patches."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from explainers.base import Explanation, Look, method
from explainers.cam import COARSE, on_canvas
from models.base import Attends, Target


def rollout(layers: Sequence[Tensor]) -> Tensor:
    """Per layer NxHxTxT, first to last, to NxT: how much of each token arrives in the first, the class token.

    Each token keeps itself beside what it gathers (the residual connection), and all heads count alike.
    """
    through = torch.eye(layers[0].shape[-1], device=layers[0].device)
    for shares in layers:
        kept = shares.mean(1) + torch.eye(shares.shape[-1], device=shares.device)
        through = kept / kept.sum(-1, keepdim=True) @ through
    return through[:, 0]


@method("Attention rollout", group="maps", live=True, tasks=("classify",), needs=("attention",),
        shows="From which patches the class token gathers what it knows, through all layers.",
        cannot="It is not class-specific: every class gets the same map. Not whether what is looked at "
               f"counts, nor {COARSE}.")
def attention_rollout(look: Look, target: Target) -> Explanation:
    """Abnar & Zuidema 2020: the layers' attentions, with the residual in them, multiplied."""
    model = look.model
    assert isinstance(model, Attends), f"{model.info.title} offers attention and does not attend"
    with torch.no_grad():
        arrived = rollout(model.attention(look.x))[:, 1:]
    side = round(arrived.shape[1] ** 0.5)
    return Explanation(on_canvas(arrived.view(1, 1, side, side), look.canvas.size))
