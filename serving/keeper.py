"""Who may come in: whoever has the token may do everything, whoever has a room's link may watch and ask.

Without a token this machine alone may come in, and may do everything.
"""
from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any, Literal
from urllib.parse import urlsplit

from models import store
from models.info import BadInput
from serving.limits import Buckets
from serving.settings import Settings

Role = Literal["presenter", "viewer"]
ROLES: tuple[Role, Role] = ("presenter", "viewer")

SHORTEST = 8                                   # letters of a token that somebody thought of
AT_ONCE, EVERY = 10, 6.0                       # wrong guesses of one address; seconds until there is another
COOKIE = 4096                                  # letters of all cookies that are looked through
FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST", "HTTP_FORWARDED",
             "HTTP_X_REAL_IP", "HTTP_VIA")


def new_token() -> str:
    """One that nobody guesses, and short enough for a QR code."""
    return secrets.token_urlsafe(16)


def checked_token(token: str) -> str:
    """The token, or a sentence that says what is wrong with it; the token itself is not repeated."""
    if len(token) < SHORTEST or not (token.isascii() and token.isprintable()) or " " in token:
        raise BadInput(f"expected a token of at least {SHORTEST} letters, digits and signs without spaces, "
                       f"got one of {len(token)}; choose another, or leave --token and SEEWHY_TOKEN out")
    return token


class TooMany(Exception):
    """This address has guessed too often; its next guess is not looked at yet."""


class Guesses:
    """A few wrong guesses for each network, then one now and then; right ones are free."""

    def __init__(self, clock: Callable[[], float] = monotonic):
        self._lock, self._left = Lock(), Buckets(1 / EVERY, AT_ONCE, clock)

    def right(self, address: str, is_right: Callable[[], bool]) -> bool:
        """Whether the guess is right; TooMany, without a look at it, when this address has none left."""
        with self._lock:
            if not self._left.of(address).take():
                raise TooMany
            found = is_right()
            if found:
                self._left.forget(address)
            return found


class Keeper:
    """Knows the token, and the cookies that it is exchanged for."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = monotonic):
        token = settings.token
        self._token = _digest(checked_token(token)) if token else None
        self._guesses = Guesses(clock)
        # Other servers on this machine have cookies of their own: a cookie does not know its port.
        self.cookie = f"seewhy-{settings.port}"
        self._cookies: dict[Role, bytes] = {}
        if token:
            secret = _secret(store.cache_folder() / "access")
            self._cookies = {role: hmac.digest(secret, f"{role} {token}".encode(), "sha256").hex().encode()
                             for role in ROLES}

    @property
    def asks(self) -> bool:
        """Whether there is a token."""
        return self._token is not None

    def role(self, environ: dict[str, Any]) -> Role | None:
        """What whoever sent this request may do; TooMany when it guesses."""
        if self._token is None:
            return "presenter" if is_near(environ) else None
        given = self._given(environ)
        for role, right in self._cookies.items():
            if given and hmac.compare_digest(given, right):
                return role
        kind, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if kind.lower() == "bearer" and self.knows(environ, token.strip()):
            return "presenter"
        return None

    def knows(self, environ: dict[str, Any], token: str) -> bool:
        """Whether that is the token; TooMany when this address has guessed too often."""
        right = self._token
        return right is not None and self._guesses.right(
            environ.get("REMOTE_ADDR", ""), lambda: hmac.compare_digest(_digest(token), right))

    def header(self, role: Role, environ: dict[str, Any]) -> str:
        """What makes a browser send that role's cookie from now on: only here, and not to scripts."""
        secure = "; Secure" if environ.get("wsgi.url_scheme") == "https" else ""
        return (f"{self.cookie}={self._cookies.get(role, b'').decode()}; Path=/; HttpOnly; "
                f"SameSite=Strict{secure}")

    def _given(self, environ: dict[str, Any]) -> bytes | None:
        text = environ.get("HTTP_COOKIE", "")
        if self.cookie not in text or len(text) > COOKIE:
            return None
        with suppress(CookieError):
            morsel = SimpleCookie(text).get(self.cookie)
            return morsel.value.encode("utf-8", "replace") if morsel else None
        return None


def is_near(environ: dict[str, Any]) -> bool:
    """Whether this machine asks, for itself or, as a proxy that somebody put there on purpose, for others."""
    address = environ.get("REMOTE_ADDR", "")
    return address == "" or is_loopback(address)         # none: through a socket file, or within this process


def is_own(environ: dict[str, Any]) -> bool:
    """Whether this machine asks for itself, and is no proxy that hands on what others ask."""
    if not is_near(environ) or any(name in environ for name in FORWARDED):
        return False
    try:
        return is_loopback(urlsplit(f"//{environ.get('HTTP_HOST') or 'localhost'}").hostname or "")
    except ValueError:                         # not a name at all
        return False


def is_loopback(address: str) -> bool:
    """Whether that name or address is one by which a machine reaches itself."""
    if address.lower() == "localhost":
        return True
    try:
        found = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return False
    inner = getattr(found, "ipv4_mapped", None)
    return bool((inner or found).is_loopback)


def _digest(token: str) -> bytes:
    """All of one length, so that comparing them says nothing of the length either."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def _secret(folder: Path) -> bytes:
    """What cookies are made with: kept, so that a server which comes back with its token knows its pages.

    Where it cannot be kept, everybody needs the link again.
    """
    file = folder / "secret"
    with suppress(OSError):
        kept = file.read_bytes()
        if len(kept) == 32:
            return kept
    made = secrets.token_bytes(32)
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = file.with_name(f"secret.{os.getpid()}")
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(made)
        os.replace(part, file)
    return made
