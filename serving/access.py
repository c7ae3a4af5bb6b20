"""What the browser may do with our pages, and who may open a socket: this machine, and whom settings add."""
from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, Response, request

from serving.entrance import Answer, entered, written
from serving.keeper import Keeper, Role
from serving.limits import one_line
from serving.metrics import Meter
from serving.settings import Settings

log = logging.getLogger("seewhy")

SMALL = 1_000_000                              # no page takes a larger request body
SOCKETS = "/socket.io/"
KEEPER, ROLE = "seewhy.keeper", "seewhy.role"  # in the environment of a request that passed the gate


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
    """Keep pages small; a changed file is seen at once, an unchanged one is not sent again."""
    app.config["MAX_CONTENT_LENGTH"] = SMALL

    @app.after_request
    def add(response: Response) -> Response:
        response.headers.setdefault("Cache-Control", "no-cache")
        if request.method in ("GET", "HEAD") and response.status_code == 200:
            response.add_etag()
            response.make_conditional(request)
        return response


def role(environ: dict[str, Any]) -> Role | None:
    """What whoever sent this request may do; None: only what everybody may.

    The gate has seen to every request that came over a network; whatever else there is, this process asks.
    """
    found: Role | None = environ.get(ROLE, "presenter")
    return found


def let_in(environ: dict[str, Any]) -> str | None:
    """Whoever sent this request knows a room's code: the Set-Cookie header that makes it a viewer.

    None where it needs none: it is something already, or there is no token.
    """
    keeper: Keeper | None = environ.get(KEEPER)
    return keeper.header("viewer", environ) if keeper and keeper.asks and role(environ) is None else None


def gate(app: Callable[..., Iterable[bytes]], settings: Settings,
         meter: Meter) -> Callable[..., Iterable[bytes]]:
    """The application behind its gate: foreign names and origins stay out, and who has no token where one is
    asked for; every answer has the headers."""
    keeper = Keeper(settings)
    headers = {
        "Content-Security-Policy": content_policy(settings),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    }

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        def start(status: str, given: list[tuple[str, str]], *more: Any) -> Any:
            have = {name.lower() for name, _ in given}
            return start_response(status, [*given, *((name, value) for name, value in headers.items()
                                                     if name.lower() not in have)], *more)

        answer = _refusal(environ, settings) or entered(keeper, environ)
        if not isinstance(answer, Answer):
            environ[KEEPER], environ[ROLE] = keeper, answer
            return app(environ, start)
        if answer.counted:
            meter.count("refused", answer.counted)
        given, body = written(answer, environ)
        start(answer.status, given)
        return [body]

    return guarded


def _refusal(environ: dict[str, Any], settings: Settings) -> Answer | None:
    """Why this request does not pass, whoever sent it; None when it does."""
    bad = "400 BAD REQUEST"
    host = environ.get("HTTP_HOST")
    # Without this a page elsewhere could have its own name lead here, and read everything as its own.
    if host is not None and name_of(host) not in settings.allowed_hosts:
        log.warning("a page was asked for by the name %s, which is not this server's", one_line(host, 80))
        return Answer(bad, "this server is not known by that name; use the address it printed, or start it "
                      "with --origin", "host")
    origin = environ.get("HTTP_ORIGIN")
    if environ.get("PATH_INFO", "").startswith(SOCKETS):
        # A page that came from the very name it connects to is ours: that name was looked at above, and which
        # port or proxy leads here is not known to a server that another program put behind one.
        ours = f"{environ.get('wsgi.url_scheme')}://{host}"
        if origin is not None and origin != ours and origin not in settings.allowed_origins:
            log.warning("a page of %s asked for a connection and was refused; --origin would allow it",
                        one_line(origin, 80))
            return Answer(bad, "pages from there may not connect here; use the address that this server "
                          "printed", "origin")
        if "sid=" in environ.get("QUERY_STRING", ""):
            return Answer(bad, "expected a new WebSocket, got a session of another transport; connect by "
                          "WebSocket alone", "transport")
    return None


def name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")
