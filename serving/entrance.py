"""The way in: a link with the token is exchanged for a cookie; whoever has neither gets a sentence."""
from __future__ import annotations

import html
import logging
import re
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from serving.keeper import Keeper, Role, TooMany, is_own

log = logging.getLogger("seewhy")

OPEN = re.compile(r"/health/live|/join/[^/]+")
"""What everybody may ask for: whether the server lives, and with a room's code to be let into the room."""
LONGEST = 500                                  # letters of a query that a token is looked for in


class Answer(NamedTuple):
    """What is said instead of the page, and what that is counted as."""

    status: str
    sentence: str
    counted: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    onwards: bool = False                      # the browser is to go on to the page by itself


def entered(keeper: Keeper, environ: dict[str, Any]) -> Answer | Role | None:
    """What to answer; or whoever may go on, with what role: none where everybody may."""
    path = environ.get("PATH_INFO", "")
    try:
        if path == "/enter":
            return _exchanged(keeper, environ)
        role = keeper.role(environ)
    except TooMany:
        return Answer("429 TOO MANY REQUESTS", "too many wrong tokens came from your address; wait a minute, "
                      "then open the presenter's link again", "guesses", (("Retry-After", "60"),))
    if role is not None or OPEN.fullmatch(path) or (path == "/metrics" and is_own(environ)):
        return role
    if not keeper.asks:
        return Answer("403 FORBIDDEN", "this server is for its own machine alone; to let others in, start it "
                      "with --lan or set SEEWHY_TOKEN", "elsewhere")
    return Answer("401 UNAUTHORIZED", "this page is opened by a link: the presenter's, which was printed "
                  "where Seewhy was started, or a room's. If you had it open before, open its link again",
                  "no token", (("WWW-Authenticate", 'Bearer realm="Seewhy"'),))


def _exchanged(keeper: Keeper, environ: dict[str, Any]) -> Answer:
    """The token for its cookie. Its address is left at once and repeated nowhere: not in a history, a log or
    another request."""
    if not keeper.asks:
        return Answer("303 SEE OTHER", "no token is needed here", None, (("Location", "/"),))
    query = environ.get("QUERY_STRING", "")
    token = parse_qs(query).get("token", [""])[0] if len(query) <= LONGEST else ""
    if not keeper.knows(environ, token):
        log.warning("somebody at %s came with a wrong token", environ.get("REMOTE_ADDR", "")[:50])
        return Answer("403 FORBIDDEN", "that is not this server's token; open the link that it printed when "
                      "it was started, each start has its own", "wrong token")
    cookie = ("Set-Cookie", keeper.header("presenter", environ))
    if environ.get("HTTP_SEC_FETCH_SITE") == "cross-site":
        # A link in somebody else's page was clicked: a browser would not send this cookie along with what
        # that page leads to, and does once our own page leads there.
        return Answer("200 OK", "you may come in", None, (cookie,), onwards=True)
    return Answer("303 SEE OTHER", "you may come in", None, (cookie, ("Location", "/")))


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">{onwards}
<title>Seewhy</title>
<h1>Seewhy</h1>
<p>{sentence}.</p>
</html>
"""
ONWARDS = '<meta http-equiv="refresh" content="0; url=/">'


def written(answer: Answer, environ: dict[str, Any]) -> tuple[list[tuple[str, str]], bytes]:
    """Headers and body: a small page for a browser, a line for everybody else."""
    as_page = "text/html" in environ.get("HTTP_ACCEPT", "") or answer.onwards
    text = PAGE.format(sentence=html.escape(answer.sentence[:1].upper() + answer.sentence[1:]),
                       onwards=ONWARDS if answer.onwards else "") if as_page else f"{answer.sentence}\n"
    body = text.encode()
    return [*answer.headers, ("Content-Type", f"text/{'html' if as_page else 'plain'}; charset=utf-8"),
            ("Content-Length", str(len(body))), ("Cache-Control", "no-store")], \
        b"" if environ.get("REQUEST_METHOD") == "HEAD" else body
