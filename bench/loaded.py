"""A model as the server has it once it has warmed up."""
from __future__ import annotations

import models
from models import compiled
from models.base import Model


def loaded(name: str) -> Model:
    """Loaded, and compiled where it can be."""
    model = models.load(name)
    compiled.compile_model(model)
    return model
