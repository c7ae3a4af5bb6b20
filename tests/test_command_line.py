"""What `python app.py ...` says, writes and returns; twice as a real process, else in this one."""
from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import app
import models
from cli.explain import unlike
from explainers import METHODS
from models import store
from models.base import Model
from serving import frames, presets
from tests.conftest import ROOT, read_rgb

Call = Callable[..., tuple[int, str, str]]
CAT, BUS = str(presets.path("cat")), str(presets.path("bus"))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, lite0: Model) -> Call:
    """The command line in this process, with the classifier that is loaded already."""
    load = models.load
    monkeypatch.setattr(models, "load", lambda name, progress=None: lite0 if name == lite0.info.name else
                        load(name, progress))

    def call(*words: str) -> tuple[int, str, str]:
        try:
            code = app.main([str(word) for word in words])
        except SystemExit as leaving:          # argparse leaves by itself
            code = int(leaving.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_models_lists_each_with_size_licence_and_presence(call: Call) -> None:
    code, out, _ = call("models")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert code == 0 and set(lines) == {"name", *models.catalog()}
    assert lines["efficientnet-lite0"].split()[1:] == ["classify", "18.7", "MB", "yes", "yes", "Apache-2.0"]
    as_json = [json.loads(line) for line in call("models", "--json")[1].splitlines()]
    assert [model["name"] for model in as_json] == list(models.catalog())


def test_models_says_which_could_not_be_compiled(call: Call, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path))
    store.note("efficientnet-lite0", "ONNX Runtime")
    store.note("yolov3-tiny", "torch: no such operator")
    lines = {line.split()[0]: line for line in call("models")[1].splitlines()}
    assert lines["yolov3-tiny"].endswith("(not compiled: torch: no such operator)")
    assert "compiled" not in lines["efficientnet-lite0"]
    as_json = {m["name"]: m["runs_in"] for m in map(json.loads, call("models", "--json")[1].splitlines())}
    assert as_json["efficientnet-lite0"] == "ONNX Runtime" and as_json["efficientnetv2-lstm"] is None


def test_predict_says_one_json_object_a_line(call: Call) -> None:
    code, out, err = call("predict", CAT, BUS, "--json")
    said = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and err == "" and [s["file"] for s in said] == [CAT, BUS]
    assert list(said[0]) == ["file", "task", "model", "classes", "ms"]
    assert said[0]["task"] == "classify" and said[0]["model"] == "efficientnet-lite0"
    assert said[0]["classes"][0]["index"] in (281, 282, 285)
    assert set(said[0]["ms"]) == {"prepare", "encode", "predict"}


def test_predict_in_words(call: Call) -> None:
    code, out, _ = call("predict", BUS)
    assert code == 0 and re.match(re.escape(BUS) + r": minibus \d+\.\d%, ", out)


def test_a_bad_file_is_one_line_and_the_others_are_done(call: Call, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "broken.jpg").write_bytes(Path(BUS).read_bytes()[:5000])
    (tmp_path / "large.png").write_bytes(b"\x89PNG" + b"0" * 20_000_001)
    bad = [tmp_path / name for name in ("missing.jpg", "notes.txt", "broken.jpg", "large.png")] + [tmp_path]
    code, out, err = call("predict", *map(str, bad), CAT, "--json")
    assert code == 1 and [json.loads(line)["file"] for line in out.splitlines()] == [CAT]
    lines = err.splitlines()
    assert len(lines) == 5
    words = ("No such file", "JPEG, PNG or WebP", "damaged", "20 MB", "directory")
    for file, line, word in zip(bad, lines, words, strict=True):
        assert line.startswith(f"{file}: ") and word in line


def test_a_photograph_lying_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    upright = Image.fromarray(read_rgb(Path(CAT)))
    exif = Image.Exif()
    exif[0x0112] = 6                           # turn right to see it
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(frames.decode((tmp_path / "turned.png").read_bytes()), np.asarray(upright))


@pytest.mark.parametrize(("words", "sentence"), [
    (["predict", CAT, "--model", "resnet51"], "there is no model 'resnet51'; there are efficientnet-lite0, "),
    (["predict", CAT, "--task", "fly"], "there is no task 'fly'; there are "),
    (["predict", CAT, "--task", "detect", "--model", "resnet50"], "does not detect; use yolov3-tiny"),
    (["predict", CAT, "--threshold", "0.5"], "EfficientNet-Lite0 has no parameter 'threshold'; it has none"),
    (["explain", CAT, "--method", "gradcam"], "there is no method 'gradcam'; for classify there are "),
    (["explain", CAT, "--method", "grad_cam", "--param", "steps=3"], "Grad-CAM has no parameter 'steps'"),
    (["explain", CAT, "--target", "class:1000"], "class must be from 0 to 999, got 1000"),
    (["explain", CAT, "--target", "class:tabbi"], "no class is called 'tabbi'"),
    (["explain", CAT, "--target", "box:0"], "target 'box:0' is not understood for classify: say class:INDEX"),
    (["explain", CAT, "--param", "steps"], "expected NAME=VALUE, got 'steps'"),
    (["fetch", "nothing"], "there is nothing called 'nothing' to fetch; there are efficientnet-lite0, "),
    (["models", "--captioner", "a.h5"], "an own captioner needs both --captioner FILE and --vocab FILE"),
    (["models", "--captioner", "a.h5", "--vocab", "b.txt"], "there is no file 'a.h5' to load"),
    (["dance"], "invalid choice: 'dance'"),
])
def test_a_wrong_call_returns_2_with_what_would_be_right(call: Call, tmp_path: Path, words: list[str],
                                                         sentence: str) -> None:
    out = ["--out", str(tmp_path)] if words[0] == "explain" else []
    code, said, err = call(*words, *out)
    assert code == 2 and said == ""
    assert sentence in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_explain_writes_a_picture_the_raw_map_and_the_numbers(call: Call, tmp_path: Path,
                                                              lite0: Model) -> None:
    out = tmp_path / "new" / "folder"
    code, said, err = call("explain", CAT, "--method", "grad-cam", "--target", "class:281/versus:285",
                           "--out", str(out))
    assert code == 0 and err == "" and "why tabby and not Egyptian cat" in said
    assert {p.name for p in out.iterdir()} == {f"chelsea.grad_cam.{end}" for end in ("json", "npy", "png")}
    frame = read_rgb(Path(CAT))
    drawn = np.asarray(Image.open(out / "chelsea.grad_cam.png"))
    heat = np.load(out / "chelsea.grad_cam.npy")
    report = json.loads((out / "chelsea.grad_cam.json").read_text())
    assert drawn.shape == frame.shape and (drawn != frame).any()
    assert heat.dtype == np.float32 and heat.shape == lite0.prepare(frame).size
    assert report["raw_max"] == pytest.approx(float(heat.max())) and not report["empty"]
    assert {k: report[k] for k in ("file", "task", "model", "method", "target", "signed")} == {
        "file": CAT, "task": "classify", "model": "efficientnet-lite0", "method": "grad_cam",
        "target": "class:281/versus:285", "signed": False}
    assert report["files"] == {"overlay": "chelsea.grad_cam.png", "heat": "chelsea.grad_cam.npy"}


def test_explain_passes_parameters_and_saves_further_pictures(call: Call, tmp_path: Path) -> None:
    code, _, err = call("explain", CAT, "--method", "fgsm", "--param", "epsilon=2", "--out", str(tmp_path))
    assert code == 0, err
    report = json.loads((tmp_path / "chelsea.fgsm.json").read_text())
    assert report["params"]["epsilon"] == 2 and report["after"]["classes"]
    assert Image.open(tmp_path / report["files"]["image"]).size[0] >= 224


def test_what_one_picture_lacks_is_that_files_failure(call: Call, tmp_path: Path) -> None:
    blank = tmp_path / "blank.png"
    Image.new("RGB", (320, 240), "grey").save(blank)
    code, said, err = call("explain", str(blank), BUS, "--task", "detect", "--target", "box:0",
                           "--out", str(tmp_path / "out"))
    assert code == 1 and err.startswith(f"{blank}: there is no box to explain") and "why person" in said
    assert {p.stem for p in (tmp_path / "out").iterdir()} == {"bus.odam"}


def test_files_of_one_name_do_not_overwrite_each_other() -> None:
    files = [Path("a/x.jpg"), Path("b/x.jpg"), Path("b/y.png"), Path("a/x.jpg")]
    assert unlike(files) == {files[0]: "x", files[1]: "x-2", files[2]: "y"}


def test_fetch_without_names_brings_what_is_embedded(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(name: str, progress: Any) -> Path:
        asked.append(name)
        return Path("there") / name

    monkeypatch.setattr(store, "fetch", fetch)
    assert call("fetch")[0] == 0 and asked == ["yolov3-tiny.weights", "socket.io.esm.min.js"]
    asked.clear()
    assert call("fetch", "resnet50", "yolov3-tiny")[0] == 0 and asked == ["resnet50", "yolov3-tiny.weights"]


def test_fetch_offline_is_one_line_and_returns_1(call: Call, monkeypatch: pytest.MonkeyPatch,
                                                 tmp_path: Path) -> None:
    nowhere = store.Asset("resnet50", None, "11ad3fa6", "none", (store.Url("http://127.0.0.1:9/weights"),))
    monkeypatch.setitem(store.ASSETS, "resnet50", nowhere)
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path))
    code, out, err = call("fetch", "resnet50")
    assert code == 1 and out == "" and len(err.splitlines()) == 1 and "http://127.0.0.1:9/weights" in err
    code, out, err = call("predict", CAT, "--model", "resnet50")
    assert code == 1 and "could not be fetched" in err


def test_the_default_method_exists_and_serves_every_task() -> None:
    assert set(METHODS["grad_cam"].tasks) == {"classify", "detect", "caption"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_real_thing_serves_says_where_and_ends_calmly() -> None:
    port = free_port()
    process = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert process.stdout is not None
        assert f"http://localhost:{port}" in process.stdout.readline()

        def get(path: str) -> Any:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30)

        assert b"<title>Seewhy" in get("/").read()
        assert json.load(get("/health"))["status"] == "ok"
        assert get("/presets/cat").headers["Content-Type"] == "image/png"
        client = get("/vendor/socket.io.esm.min.js")
        assert client.headers["Content-Type"].startswith("text/javascript") and len(client.read()) == 40_759
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get("/presets/nobody")
        process.terminate()
        rest = process.stdout.read()
        assert process.wait(timeout=60) == 0
        assert "WARNING" not in rest and "GET /" not in rest and "Traceback" not in rest
    finally:
        process.kill()
        process.wait()


def test_the_real_command_line_writes_json_alone_to_stdout() -> None:
    done = subprocess.run([sys.executable, "app.py", "predict", CAT, "missing.jpg", "--json"], cwd=ROOT,
                          text=True, capture_output=True, timeout=300, check=False)
    assert done.returncode == 1
    assert [json.loads(line)["file"] for line in done.stdout.splitlines()] == [CAT]
    assert done.stderr.splitlines() == ["missing.jpg: cannot be read: No such file or directory"]
