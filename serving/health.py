"""Whether the server lives, whether it can look at a picture, and what it did."""
from __future__ import annotations

from typing import TYPE_CHECKING

from serving.keeper import is_own

if TYPE_CHECKING:
    from flask import Flask, Response


def watch(app: Flask) -> None:
    """The routes for whoever runs the server; what a person looks at is elsewhere."""
    from flask import jsonify, request

    from serving import access, metrics

    @app.get("/health")
    def health() -> Response:
        live = app.extensions.get("live")
        return jsonify(status="ok", clients=len(live.sessions) if live else 0)

    @app.get("/health/live")
    def is_alive() -> Response:
        return jsonify(status="live")

    @app.get("/health/ready")
    def is_ready() -> tuple[Response, int]:
        reason = missing(app)
        if reason is None:
            return jsonify(status="ready"), 200
        return jsonify(status="not ready", reason=reason), 503

    @app.get("/metrics")
    def measured() -> Response | tuple[Response, int]:
        if not (is_own(request.environ) or access.role(request.environ) == "presenter"):
            return jsonify(error="metrics are for this machine and the presenter alone; ask with "
                                 "Authorization: Bearer and the token"), 403
        text, kind = metrics.exposition(app)
        return app.response_class(text, content_type=kind)


def missing(app: Flask) -> str | None:
    """Why no picture can be looked at yet, in a sentence; None when one can."""
    live, door = app.extensions.get("live"), app.extensions.get("door")
    if live is None:
        problem = door.problem if door else None
        return f"the server could not start: {problem}" if problem else "PyTorch is still starting"
    figures = live.engine.figures()
    if figures.models:
        return None
    if figures.failed:
        return "; ".join(figures.failed.values())
    return f"no model is here yet; {', '.join(figures.coming) or 'none'} is on its way"
