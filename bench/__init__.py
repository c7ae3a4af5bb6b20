"""What is claimed about speed and truth, measured."""
from models import threads  # noqa: F401  (before torch, whose threads read it once)
