"""All words of a caption at once: what a caption's film strip is made of."""
from __future__ import annotations

import numpy as np
import torch

from explainers.base import Explanation, Look, method
from explainers.cam import on_canvas
from models.base import Target


@method("All words", group="maps", tasks=("caption",), live=True,
        shows="Grad-CAM of every word of the caption, on one shared scale.",
        cannot="Not what within a region, nor anything finer than the map's cells; a faint map may be a word "
               "that came from the words before it.")
def word_maps(look: Look, target: Target) -> Explanation:
    """The target's map (a word or the whole caption), and one for each word, from one backward pass."""
    model, features = look.model, look.features[0]
    weights = model.channel_gradients(look.features, target)  # type: ignore[attr-defined]
    raw = torch.einsum("tc,chw->thw", weights, features[0])[:, None, None]
    chosen = raw.sum(0) if target.position is None else raw[target.position]
    read = model.read(look.features, look.canvas, target.words)  # type: ignore[attr-defined]
    names = [f"{t} {word.word}" for t, word in enumerate(read.words)]
    levels = [on_canvas(torch.relu(level), look.canvas.size) for level in (chosen, *raw)]
    logs = [float(np.log(max(word.probability, 1e-30))) for word in read.words]
    return Explanation(levels[0], maps=dict(zip(names, levels[1:], strict=True)),
                       numbers=dict(zip(names, logs, strict=True)), prediction=read)
