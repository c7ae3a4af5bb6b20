"""A file over HTTP: continued where it was cut, refused when it is not what was offered."""
from __future__ import annotations

from pathlib import Path

import requests
import urllib3

from models.info import Progress
from models.sources import CHUNK, Refused, size_of

TIMES = (6.05, 30)                             # seconds to connect, and to wait for the next bytes
CUTS = 4                                       # how often a cut connection is taken up again


class Cut(Exception):
    """The connection ended before the file did."""


def obtain(address: str, name: str, expected: int | None, part: Path, progress: Progress) -> None:
    """The whole file at `part`; as often as the connection is cut with something gained, it goes on."""
    cuts = 0
    while True:
        before = size_of(part)
        try:
            return _stream(name, expected, address, part, progress)
        except (requests.RequestException, urllib3.exceptions.HTTPError, Cut) as problem:
            cuts += 1
            if size_of(part) <= before or cuts > CUTS:
                raise Refused(_reason(problem)) from problem


def _reason(problem: Exception) -> str:
    """What went wrong, in a few words; the libraries' own texts are long and nested."""
    if isinstance(problem, requests.exceptions.SSLError):
        return "its certificate was not accepted"
    if isinstance(problem, requests.Timeout):
        return "no answer in time"
    if isinstance(problem, Cut | urllib3.exceptions.HTTPError):
        return "the connection keeps breaking off"
    if isinstance(problem, requests.ConnectionError):
        return "not reachable"
    return str(problem) or type(problem).__name__


def _stream(name: str, expected: int | None, address: str, part: Path, progress: Progress) -> None:
    """One request: what is missing after the bytes that are here, or all of it."""
    start = size_of(part)
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    with requests.get(address, headers=headers, stream=True, timeout=TIMES) as answer:
        span = answer.headers.get("Content-Range", "")
        if start and answer.status_code == 416:    # nothing lies beyond what we have
            if span == f"bytes */{start}":
                return
            part.unlink()
            return _stream(name, expected, address, part, progress)
        if answer.status_code not in (200, 206):
            raise Refused(f"the server answered {answer.status_code} {answer.reason}")
        if answer.status_code == 206 and not span.startswith(f"bytes {start}-"):
            raise Refused(f"the server sent {span or 'an unknown part'}, asked for bytes from {start}")
        if answer.status_code == 200:          # it cannot continue: from the start
            start = 0
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else expected or 0
        if expected and total != expected:
            raise Refused(f"expected {expected:,} bytes, the server offers {total:,}")
        _write(answer, name, start, total, part, progress)


def _write(answer: requests.Response, name: str, start: int, total: int, part: Path,
           progress: Progress) -> None:
    done = start
    progress(name, done, total)
    with part.open("ab" if start else "wb") as file:
        # read1 hands on what has come; iter_content would lose a last piece that is cut short.
        while piece := answer.raw.read1(CHUNK):
            file.write(piece)
            done += len(piece)
            if total and done > total:
                raise Refused(f"expected {total:,} bytes, the server sends more")
            progress(name, done, total)
    if done < total:
        raise Cut(f"the connection ended after {done:,} of {total:,} bytes")
