"""How a server or a command runs: frozen, picklable, and all that a process needs to know to work for it."""
from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from models import Own
from models.info import BadInput


def _megabytes(variable: str, default: int) -> int:
    """A bound from the environment, or a sentence when it is none."""
    text = os.environ.get(variable, "")
    if text and not (text.isascii() and text.isdecimal() and 0 < int(text) < 10**7):
        raise BadInput(f"{variable} must be a whole number of megabytes, got {text[:40]!r}")
    return int(text) if text else default


def _words(variable: str) -> tuple[str, ...]:
    return tuple(os.environ.get(variable, "").replace(",", " ").split())


@dataclass(frozen=True)
class Settings:
    """How this server runs. Frozen: whoever wants another makes another."""

    host: str = "127.0.0.1"
    port: int = 4200
    origins: tuple[str, ...] = field(          # allowed besides localhost, as http(s)://name:port
        default_factory=lambda: _words("SEEWHY_ORIGIN"))
    hosts: tuple[str, ...] = field(            # names it is reached by, besides origins'
        default_factory=lambda: _words("SEEWHY_HOSTS"))
    token: str | None = field(                 # who has it may do everything; without it this machine alone
        default_factory=lambda: os.environ.get("SEEWHY_TOKEN") or None, repr=False)
    certificate: Path | None = None            # a file with a key and certificate; then https alone is spoken
    task: str = "classify"
    captioner: Path | None = None              # the user's own captioner weights ...
    vocabulary: Path | None = None             # ... and its words
    trusted_model: Path | None = None          # a .pt file that may run code
    onnx: Path | None = None                   # the user's own ONNX net ...
    labels: Path | None = None                 # ... its classes, a name a line ...
    onnx_task: str = "classify"                # ... and what it does
    plugins: tuple[Path, ...] = ()             # the user's Python files with methods or models
    jpeg_bytes: int = 300_000                  # the live channel
    jpeg_pixels: int = 2**21                   # two megapixels; Full HD still fits
    upload_bytes: int = 20_000_000             # a file before the browser or command line scales it down
    upload_pixels: int = 64_000_000
    kept: int = 8                              # frozen pictures a client may come back to
    clients: int = 64
    rooms: int = 8                             # open at once ...
    viewers: int = 100                         # ... and who watches, in all of them together
    connections: int = 512                     # open at once, pages or not ...
    per_address: int = 160                     # ... and of one address, behind which there may be a class
    handshake: float = 10.0                    # seconds for a request to come, and for a client to join
    silence: float = 10.0                      # seconds that a client may take nothing of what it is sent
    frames_a_second: float = 120.0             # of one client; twice as many at once
    requests_a_second: float = 30.0            # of one client; five times as many at once
    compiled: bool = field(default_factory=lambda: os.environ.get("SEEWHY_COMPILED", "1") != "0")
    # What may be remembered in each process that works, and how much its models may weigh.
    looks_mb: int = field(default_factory=lambda: _megabytes("SEEWHY_LOOKS_MB", 512))
    kept_mb: int = field(default_factory=lambda: _megabytes("SEEWHY_KEPT_MB", 256))  # pictures of all clients
    models_mb: int = field(default_factory=lambda: _megabytes("SEEWHY_MODELS_MB", 4096))

    @property
    def allowed_origins(self) -> list[str]:
        """Where the page may come from: this machine under its usual names, and what was added."""
        names = ["localhost", "127.0.0.1", "[::1]"]
        if self.host not in ("", "0.0.0.0", "::", "::1", *names):
            names.append(self.host)
        return [f"{self.scheme}://{name}:{self.port}" for name in names] + list(self.origins)

    @property
    def scheme(self) -> str:
        return "https" if self.certificate else "http"

    @property
    def address(self) -> str:
        """Where others find the page, if they do; else where this machine does."""
        if self.origins:
            return self.origins[0].rstrip("/")
        everywhere = self.host in ("", "0.0.0.0", "::", "127.0.0.1", "::1")
        name = "localhost" if everywhere else f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{name}:{self.port}"

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """The names that the page may be asked for by; any other is that of a page elsewhere."""
        added = [urlsplit(origin).hostname or "" for origin in self.allowed_origins]
        return frozenset(name.lower().strip("[]") for name in (*added, *self.hosts) if name)

    @property
    def limits(self) -> dict[str, int]:
        """What the page must keep to."""
        return {"jpeg_bytes": self.jpeg_bytes, "jpeg_pixels": self.jpeg_pixels,
                "upload_bytes": self.upload_bytes, "kept": self.kept}

    @property
    def own(self) -> tuple[Own, ...]:
        """What the user brings, for `models`: plain data that travels to every process that works."""
        found = [Own(str(file)) for file in self.plugins]
        if self.captioner or self.vocabulary:
            if not (self.captioner and self.vocabulary):
                raise BadInput("an own captioner needs both --captioner FILE and --vocab FILE")
            found.append(Own("models.captioner", (self.captioner, self.vocabulary)))
        if self.trusted_model:
            found.append(Own("models.yolo", (self.trusted_model,)))
        if self.onnx or self.labels:
            if not (self.onnx and self.labels):
                raise BadInput("an own ONNX model needs both --onnx FILE and --labels FILE")
            found.append(Own("models.onnx_file", (self.onnx, self.labels), self.onnx_task))
        return tuple(found)
