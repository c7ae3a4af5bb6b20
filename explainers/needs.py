"""Which methods a model can serve, and what is missing where it cannot, in a sentence."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from models import nets
from models.base import Model, Net

if TYPE_CHECKING:
    from explainers.base import Method

STATISTICS = Path(__file__).parent / "statistics"         # ParchGrad's, NAME.npz for each model that has some
INSTEAD = "take another method, such as occlusion or RISE"


def offered(model: Model) -> frozenset[str]:
    """What methods may ask of a model: what it says itself, and what explainers keep beside it."""
    known = (STATISTICS / f"{model.info.name}.npz").is_file()
    return model.offers | {"statistics"} if known else model.offers


def lacks(method: Method, model: Model) -> str | None:
    """None where the model can serve the method, else one sentence: what is missing, and what to take."""
    return missing(method.needs, method.title, model)


def missing(needs: frozenset[str], who: str, model: Model) -> str | None:
    """The same for any work that needs these words."""
    absent = needs - offered(model)
    if not absent:
        return None
    for word, sentence in SENTENCES.items():
        if word in absent:
            return sentence(who, model)
    return f"{who} needs {min(absent)}, which {model.info.title} does not offer; {INSTEAD}"


def _gradient(who: str, model: Model) -> str:
    fit = "D-RISE, occlusion or RISE" if model.info.task == "detect" else "occlusion or RISE"
    return f"{who} needs gradients, and {model.info.title} has none; take {fit}"


def _relu(who: str, model: Model) -> str:
    other = [a for a in nets.activations(model.net) if a != "ReLU"] if isinstance(model, Net) else []
    return (f"{who} drops negative signals at ReLUs, and {model.info.title} has "
            f"{', '.join(other) or 'none'}; take a net whose activations are all ReLU (resnet50), "
            "or another method")


def _statistics(who: str, model: Model) -> str:
    name = model.info.name
    have = ", ".join(sorted(f.stem for f in STATISTICS.glob("*.npz"))) or "none"
    return (f"{who} needs statistics of the channels of {name} (there are: {have}); make them with: "
            f"python -m explainers.parchgrad --data FOLDER --model {name}")


# In this order: what is said is what the rest hangs on.
SENTENCES: dict[str, Callable[[str, Model], str]] = {
    "gradient": _gradient,
    "words": lambda who, model: f"{who} is about a caption's words, and {model.info.title} says none; "
                                "take a model that captions, or another method",
    "maps": lambda who, model: f"{who} looks at a model's last map, and {model.info.title} shows none; "
                               f"{INSTEAD}",
    "attention": lambda who, model: f"{who} reads how tokens attend to one another, and {model.info.title} "
                                    "has no attention; take a vision transformer (vit_b_16), or Grad-CAM",
    "net": lambda who, model: f"{who} has to reach into a torch net, and {model.info.title} is none; take "
                              "saliency, SmoothGrad or integrated gradients",
    "relu": _relu,
    "statistics": _statistics,
    "redraw": lambda who, model: f"{who} draws weights anew, and those of {model.info.title} cannot be; "
                                 "take the deletion and insertion curves",
}
