"""How the models that we ship were made; nothing that only runs them imports this."""
from models import threads  # noqa: F401  (before torch, whose threads read it once)
