"""Explanations from the gradient of the score with respect to the pixels."""
from __future__ import annotations

import numpy as np
from captum.attr import Saliency
from torch import Tensor

from explainers.base import Explanation, Look, method
from models.base import Target


def per_pixel(attribution: Tensor) -> np.ndarray:
    """The strongest channel of |attribution|, 1x3xhxw to hxw."""
    return attribution.detach().abs().amax(1)[0].cpu().numpy()


@method("Saliency", group="gradients", live=True,
        shows="Which pixels would change the score most if they changed a little.",
        cannot="Not whether a pixel speaks for or against, and it is noisy on deep nets.")
def saliency(look: Look, target: Target) -> Explanation:
    """Simonyan et al. 2014: |d score / d pixel|, the strongest of the three colours."""
    x = look.x.clone().requires_grad_()
    return Explanation(per_pixel(Saliency(look.forward(target)).attribute(x)))
