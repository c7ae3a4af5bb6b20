"""All words of a caption at once: what a caption's film strip is made of."""
from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from explainers.base import Explanation, Look, method
from models.base import BadInput, Captioner, Target


@method("All words", group="maps", tasks=("caption",), live=True, needs=("maps", "words"),
        shows="Grad-CAM of every word of the caption, on one shared scale.",
        cannot="Not what within a region, nor anything finer than the map's cells; a faint map may be a word "
               "that came from the words before it.")
def word_maps(look: Look, target: Target) -> Explanation:
    """The target's map (a word or the whole caption), and one for each word, from one backward pass."""
    model, seen, words = look.model, look.prediction, target.words
    if not isinstance(model, Captioner) or words is None:
        raise BadInput("all words are those of a caption; say caption or word:N")
    weights = model.channel_gradients(look.features, target)
    raw = torch.einsum("tc,chw->thw", weights, look.features.maps[0][0])
    chosen = raw.sum(0) if target.position is None else raw[target.position]
    heat, *maps = F.interpolate(torch.relu(torch.cat([chosen[None], raw]))[:, None], look.canvas.size,
                                mode="bilinear", align_corners=False)[:, 0].cpu().numpy()
    if words != tuple(word.index for word in seen.words):
        seen = model.read(look.features, look.canvas, words)
    names = [f"{t} {word.word}" for t, word in enumerate(seen.words)]
    logs = [float(np.log(max(word.probability, 1e-30))) for word in seen.words]
    return Explanation(heat, maps=dict(zip(names, maps, strict=True)),
                       numbers=dict(zip(names, logs, strict=True)), prediction=seen)
