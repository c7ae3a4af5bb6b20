"""The real program, watched from within: it speaks to nobody, starts nothing, and writes no picture."""
from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from processes import Visitor, free_port, started
from stand_in import jpeg, png, until
from test_wire import asked

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
TOKEN = "a-token-for-tests"

WATCH = """
import json, os, sys

out = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "subprocess.Popen", "os.system",
                 "os.exec", "os.posix_spawn"):
        said = [event, str(arguments[:2])]
    elif event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        said = [event, str(arguments[0])]
    else:
        return
    os.write(out, (json.dumps(said) + "\\n").encode())


sys.addaudithook(watch)
"""


def traced() -> list[str]:
    """How the system tells of every connection, those of libraries in C too; nothing where it cannot."""
    # -D: what is started is the server itself, and takes its signals.
    command = ["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-e",
               "trace=connect,sendto,sendmsg,sendmmsg", "-o"]
    there = shutil.which("strace") and subprocess.run(
        [*command, os.devnull, "true"], capture_output=True, check=False).returncode == 0
    return command if there else []


TRACED = traced()


@dataclass
class Watched:
    url: str
    folder: Path
    pictures: list[bytes]

    def events(self, *kinds: str) -> list[str]:
        lines = map(json.loads, (self.folder / "watched").read_text().splitlines())
        return [what for event, what in lines if event in kinds]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory,
            photographs: dict[str, np.ndarray]) -> Iterator[Watched]:
    """A server of which everything a page can do was asked once, and which has ended since."""
    folder, port = tmp_path_factory.mktemp("watched"), free_port()
    for name in ("site", "tmp", "home", "cache"):
        (folder / name).mkdir()
    (folder / "site" / "sitecustomize.py").write_text(WATCH)
    environment = {"WATCHED": str(folder / "watched"), "TMPDIR": str(folder / "tmp"),
                   "HOME": str(folder / "home"), "SEEWHY_CACHE": str(folder / "cache"),
                   "SEEWHY_TOKEN": TOKEN, "YOLO_CONFIG_DIR": str(folder / "home"),
                   "PYTHONPATH": str(folder / "site")}
    pictures = [jpeg(photographs[name][::2, ::2]) for name in ("cat", "bus", "coffee")]
    command = [*TRACED, folder / "traced", sys.executable] if TRACED else [sys.executable]
    with started([*command, "app.py", "--port", port], port, folder / "log", **environment) as process:
        url = f"http://127.0.0.1:{port}"
        caller = Visitor(url, Authorization=f"Bearer {TOKEN}")
        caller.io.emit("configure", {"method": "grad_cam"})
        for seq, picture in enumerate(pictures, 1):
            assert caller.frame(seq, picture, keep=True)["classes"]
        caller.frame(8, pictures[0][:-100])
        hole = np.zeros(photographs["cat"][::2, ::2].shape[:2], bool)
        hole[40:60, 40:60] = True
        caller.io.emit("edit", {"id": "w", "seq": 1, "mask": png(hole), "fill": "telea"})
        caller.one("result", id="w")
        caller.io.emit("explain", {"id": "e", "seq": 2, "method": "integrated_gradients"})
        until(lambda: caller.all("explanation", id="e", done=True), "an explanation", 60)
        caller.io.emit("explain", {"id": "f", "seq": 1, "method": "grad_cam", "edited": True})
        caller.one("explanation", id="f")
        caller.frame(9, b"\xff\xd8\xff" + pictures[1][3:400] * 3)
        compiled = {"Authorization": f"Bearer {TOKEN}"}
        until(lambda: b"ONNX Runtime" in asked(url, "/metrics", **compiled).read(), "the compiled model", 60)
        asked(url, f"/enter?token={TOKEN}")
        asked(url, "/enter?token=not-the-token")
        process.terminate()
        assert process.wait(20) == 0
        pictures.append(caller.one("result", id="w")["image"])
        yield Watched(url, folder, pictures)


def test_it_speaks_to_nobody_and_starts_nothing(watched: Watched) -> None:
    spoken = watched.events("socket.connect", "socket.sendto", "socket.getaddrinfo")
    assert [what for what in spoken if "127.0.0.1" not in what and "localhost" not in what] == []
    if TRACED:
        calls = (watched.folder / "traced").read_text()
        addresses = re.findall(r"AF_INET6?.*?inet_(?:addr|pton)\((?:AF_INET6, )?\"([^\"]+)\"", calls)
        assert [address for address in addresses if not address.startswith(("127.", "::1"))] == []
    started = watched.events("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
    assert [what for what in started if any(word in what for word in ("pip", "curl", "wget", "git"))] == []
    left = {file.relative_to(watched.folder / "home") for file in (watched.folder / "home").rglob("*")}
    assert left == set(), "nor does a library keep a diary to be sent later"


def test_no_picture_is_on_disk_or_in_the_log(watched: Watched) -> None:
    """Not as it came, not as it was edited, not in part: sixteen bytes of a JPEG are nowhere by chance."""
    parts = [picture[at:at + 16] for picture in watched.pictures
             for at in range(len(picture) // 4, len(picture) - 16, len(picture) // 20)]
    assert len(parts) >= 40
    written = {Path(name) for name in watched.events("open") if os.path.isfile(name)}
    files = {*filter(Path.is_file, watched.folder.rglob("*")), *written}
    assert watched.folder / "log" in files and any(file.suffix == ".onnx" for file in files)
    for file in files:
        data = file.read_bytes()
        assert not [part for part in parts if part in data], file
        assert not data.startswith((b"\xff\xd8\xff", b"\x89PNG")), file
    log = (watched.folder / "log").read_text()
    assert "JFIF" not in log and "\\xff\\xd8" not in log and "base64" not in log


def test_the_log_is_lines_that_a_person_can_act_on(watched: Watched) -> None:
    log = (watched.folder / "log").read_text()
    assert "Traceback" not in log and len(log.splitlines()) < 10
    assert log.count(TOKEN) == 1, "in the link that was printed, and nowhere else"
    assert "wrong token" in log and "not-the-token" not in log
    for name in watched.events("open"):
        ours = name.startswith(("/dev/", "/proc/", str(watched.folder)))
        assert ours or not os.path.exists(name) or "__pycache__" in name, name
