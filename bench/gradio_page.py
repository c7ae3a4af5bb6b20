"""The page that somebody would build with Gradio for the same: a webcam's frames, what is seen, and why.

Run by the Python of Gradio's own environment (its packages want other versions than ours), which finds the
project's packages after its own:

    .venv/gradio/bin/python bench/gradio_page.py PORT SITE_PACKAGES
"""
from __future__ import annotations

import os
import site
import sys
from pathlib import Path
from typing import Any

os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1")
sys.path.append(str(Path(__file__).resolve().parent.parent))
site.addsitedir(sys.argv[2])

import gradio as gr  # noqa: E402
import numpy as np  # noqa: E402

from bench.loaded import loaded  # noqa: E402
from explainers import Look, Question, render, resolve, steps  # noqa: E402

EVERY = 0.03                 # seconds between two frames; by itself Gradio would send two a second


def page() -> Any:
    """What Seewhy does with a live frame, as one function between Gradio's own parts."""
    model = loaded("efficientnet-lite0")

    def see(frame: np.ndarray | None) -> tuple[np.ndarray | None, dict[str, float]]:
        if frame is None:
            return None, {}
        look = Look(model, frame)
        *_, e = steps(look, "grad_cam", resolve(Question(), look), {})
        return render.overlay(frame, e), {c.label: c.probability for c in look.prediction.classes}

    with gr.Blocks() as built:
        camera = gr.Image(sources=["webcam"], streaming=True, height=240)
        seen, named = gr.Image(height=240, elem_id="seen"), gr.Label()
        camera.stream(see, camera, [seen, named], stream_every=EVERY, time_limit=None, concurrency_limit=1,
                      show_progress="hidden")
    return built


if __name__ == "__main__":
    page().launch(server_name="127.0.0.1", server_port=int(sys.argv[1]), quiet=True)
