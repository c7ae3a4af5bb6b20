"""What the browser may do with our pages, and who may open a socket: this machine, and whom settings add."""
from __future__ import annotations

from flask import Flask, Response, request

from serving.settings import Settings

SMALL = 1_000_000                              # no page takes a larger request body


def content_policy(settings: Settings) -> str:
    """Everything from here, nothing from elsewhere; sockets by name for browsers whose 'self' is http."""
    sockets = " ".join(origin.replace("http", "ws", 1) for origin in settings.allowed_origins
                       if "[" not in origin)  # a policy has no way to write an IPv6 address
    return "; ".join((
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        f"connect-src 'self' {sockets}",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ))


def protect(app: Flask, settings: Settings) -> None:
    """Put the headers on every answer; a changed file is seen at once, an unchanged one is not sent again."""
    app.config["MAX_CONTENT_LENGTH"] = SMALL
    headers = {
        "Content-Security-Policy": content_policy(settings),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    }

    @app.after_request
    def add(response: Response) -> Response:
        for name, value in headers.items():
            response.headers[name] = value
        response.headers.setdefault("Cache-Control", "no-cache")
        if request.method in ("GET", "HEAD") and response.status_code == 200:
            response.add_etag()
            response.make_conditional(request)
        return response
