"""The protocol, message by message, with models whose answers are known on paper."""
from __future__ import annotations

import json
import logging
import threading
from typing import Any

import numpy as np
import pytest
import toy_room
from stand_in import Client, colour, engine_of, jpeg, png, until

from explainers.base import Look
from models.base import Target
from serving import messages, shelf
from serving.events import Live

HOLE = np.pad(np.ones((8, 8), bool), ((20, 20), (28, 28)))


def test_ready_tells_all_the_page_needs(client: Client) -> None:
    first, second = client.all("ready")[:2]
    assert first["labels"] == {} and second["labels"] == {"toy": {"0": "red", "1": "green", "2": "blue"}}
    assert second["configured"] == {"task": "classify", "model": "toy", "settings": {}, "method": None,
                                    "params": {}, "target": None}
    assert {m["name"] for m in second["catalog"]} == set(toy_room.CATALOG)
    toy = second["catalog"][0]
    assert toy["present"] is True and toy["settings"][0]["name"] == "sharpness"
    assert {"grad_cam", "saliency", "toy_counting"} <= {m["name"] for m in second["methods"]}
    assert second["limits"] == {"jpeg_bytes": 300_000, "jpeg_pixels": 2**21, "upload_bytes": 20_000_000,
                                "kept": 8}
    assert second["fills"] and second["tasks"] == ["classify", "detect"]
    json.dumps(second, allow_nan=False)
    assert [p["what"] for p in client.all("progress")] == ["load", "load"]


def test_a_frame_is_answered_with_what_the_model_saw(client: Client) -> None:
    said = client.frame(colour("green"))
    assert said["classes"][0]["label"] == "green" and said["classes"][0]["probability"] > 0.9
    assert said["size"] == [64, 48] and said["area"] == [0, 0, 64, 48] and said["follows"] is False
    assert (said["task"], said["model"]) == ("classify", "toy")
    assert set(said["ms"]) == {"decode", "wait", "prepare", "encode", "predict"}
    assert "picture" not in said and "picture" in client.frame(colour("green"), keep=True)
    assert client.frame(colour("red"))["classes"][0]["label"] == "red"


@pytest.mark.parametrize("message, code", [
    ({"seq": 5, "jpeg": b"no jpeg"}, "not_jpeg"),
    ({"seq": 5}, "not_jpeg"),
    ({"seq": 5, "jpeg": jpeg(colour("red")) + bytes(400_000)}, "too_large"),
    ({"seq": 5, "jpeg": jpeg(np.zeros((1500, 1500, 3), np.uint8))}, "too_large"),
    ({"seq": 5, "jpeg": jpeg(colour("red")), "model": "none"}, "bad_input"),
    ({"seq": 5, "jpeg": jpeg(colour("red")), "task": "none"}, "bad_input"),
    ({"seq": 5, "jpeg": jpeg(colour("red")), "model": ["toy"]}, "bad_input"),
    ({"seq": 5, "jpeg": jpeg(colour("red")), "task": {}}, "bad_input"),
    ({"seq": 5, "jpeg": jpeg(colour("red")), "model": "toy-boxes", "task": "classify"}, "bad_input"),
], ids=range(9))
def test_a_bad_frame_gets_its_credit_back_and_the_connection_stays(
        client: Client, message: dict[str, Any], code: str) -> None:
    client.emit("frame", message)
    said = client.one("error", seq=5)
    assert said["code"] == code and len(said["message"]) > 20
    assert client.frame(colour("blue"), seq=6)["classes"][0]["label"] == "blue"
    assert len(client.all("result", "error", "dropped", seq=5)) == 1


def test_unknown_names_come_with_the_valid_ones(client: Client) -> None:
    client.emit("configure", {"model": "nothing"})
    assert client.one("error")["valid"] == list(toy_room.CATALOG)
    client.emit("configure", {"method": "nothing"})
    assert "saliency" in until(lambda: client.all("error")[1:], "an error")[0]["valid"]
    client.emit("configure", {"method": "toy_counting"})
    said = until(lambda: client.all("error")[2:], "an error")[0]
    assert "toy_odd" in said["valid"] and "too long to follow" in said["message"]
    client.emit("configure", {"settings": {"sharpness": 500}})
    assert "from 1 to 50" in until(lambda: client.all("error")[3:], "an error")[0]["message"]
    client.emit("configure", {"settings": {"bluntness": 5}})
    assert "it has sharpness" in until(lambda: client.all("error")[4:], "an error")[0]["message"]
    assert client.frame(colour("red"))["classes"][0]["label"] == "red", "all is as it was"


def test_a_frame_without_a_number_is_refused_in_words(client: Client) -> None:
    for seq in (None, "five", 1.5, True, [1]):
        before = len(client.all("error"))
        client.emit("frame", {"seq": seq, "jpeg": jpeg(colour("red"))})
        said = until(lambda n=before: client.all("error")[n:], "an error")[0]  # type: ignore[misc]
        assert said["code"] == "bad_input" and "whole number" in said["message"]
    assert client.all("error")[1]["seq"] == "five"


def test_settings_reach_the_model(client: Client) -> None:
    sharp = client.frame(colour("red"))["classes"][0]["probability"]
    client.emit("configure", {"settings": {"sharpness": 1}})
    client.one("ready", configured={**client.all("ready")[-1]["configured"], "settings": {"sharpness": 1}})
    assert client.frame(colour("red"))["classes"][0]["probability"] < sharp


def test_a_live_map_follows_each_result_and_odd_numbers_are_carried(client: Client) -> None:
    client.emit("configure", {"method": "toy_odd"})
    assert client.all("ready")[-1]["configured"]["method"] == "toy_odd"
    for n in (1, 2, 3):
        assert client.frame(colour("red"), seq=n)["follows"] is True
        said = client.one("explanation", seq=n)
        assert said["live"] is True and said["done"] is True
    order = [e for e, d in client.heard if e in ("result", "explanation")]
    assert order == ["result", "explanation"] * 3
    heat = np.frombuffer(said["heat"], np.uint8).reshape(said["shape"])
    assert np.argwhere(heat).tolist() == [[3, 5]] and heat[3, 5] == 255
    assert said["raw_max"] == 2.0 and said["title"] == "why red" and said["area"] == [0, 0, 64, 48]
    assert said["numbers"] == {"nan": None, "many": 2.5} and said["curves"] == {"up": [0.0, None]}
    assert said["images"]["image"][:3] == b"\xff\xd8\xff" and said["maps"]["other"]["shape"] == [16, 16]
    assert said["after"]["classes"][0]["label"] == "red"
    client.emit("configure", {"method": None})
    assert client.frame(colour("red"), seq=4)["follows"] is False


def test_a_live_target_that_is_wrong_is_told_once_and_costs_no_credit(client: Client) -> None:
    client.emit("configure", {"method": "saliency", "target": "class:99"})
    for n in range(1, 5):
        assert client.frame(colour("red"), seq=n)["follows"] is False
    assert [("seq" in e, "0 to 2" in e["message"]) for e in client.all("error")] == [(False, True)]
    client.emit("configure", {"target": "class:2"})
    client.frame(colour("red"), seq=9)
    assert client.one("explanation", seq=9)["title"] == "why blue"


def test_the_live_map_is_of_the_box_nearest_to_the_last_click(client: Client) -> None:
    picture = np.concatenate([colour("red", 48, 32), colour("blue", 48, 32)], 1)
    client.emit("configure", {"task": "detect", "method": "saliency", "target": "near:0.9,0.4"})
    client.one("ready", labels={"toy-boxes": {"0": "red", "1": "green", "2": "blue"}})

    def hot_half(seq: int) -> str:
        assert client.frame(picture, seq=seq)["follows"] is True
        said = client.one("explanation", seq=seq)
        heat = np.frombuffer(said["heat"], np.uint8).reshape(said["shape"])
        return "right" if heat[:, 8:].sum() > heat[:, :8].sum() == 0 else "left"

    assert hot_half(1) == "right"
    client.emit("configure", {"target": "near:0.2,0.9"})
    assert hot_half(2) == "left"
    client.emit("configure", {"target": None})
    assert hot_half(3) in ("left", "right")


def test_no_box_means_no_live_map_and_no_error(client: Client) -> None:
    dark = np.zeros((48, 64, 3), np.uint8)
    client.emit("configure", {"task": "detect", "method": "saliency"})
    client.one("ready", labels={"toy-boxes": {"0": "red", "1": "green", "2": "blue"}})
    for seq, target in enumerate((None, "near:0.5,0.5", "box:0", "box:7/class:red", "candidate:0"), 1):
        client.emit("configure", {"target": target})
        said = client.frame(dark, seq=seq)
        assert said["boxes"] == [] and said["follows"] is False
    assert not client.all("error", "explanation")
    client.emit("configure", {"target": "near:here"})
    bright = client.frame(colour("red"), seq=20)
    assert bright["follows"] is False and "shares of the picture" in client.one("error")["message"]


def test_a_kept_picture_is_explained_for_any_class(client: Client) -> None:
    client.frame(colour("red"), seq=7, keep=True)
    client.emit("explain", {"id": "a", "seq": 7, "method": "saliency", "target": "class:1/versus:2"})
    said = client.one("explanation", id="a")
    assert (said["seq"], said["done"], said["method"]) == (7, True, "saliency")
    assert said["target"] == "class:1/versus:2" and said["title"] == "why green and not blue"
    assert len(said["heat"]) == said["shape"][0] * said["shape"][1]
    assert "live" not in said and said["progress"] == 1


def test_explaining_looks_only_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.frame(colour("red"), seq=1, keep=True)
    looked: list[int] = []
    init = Look.__init__

    def counted(self: Look, *arguments: Any, **named: Any) -> None:
        looked.append(1)
        init(self, *arguments, **named)

    monkeypatch.setattr(Look, "__init__", counted)
    for n, settings in enumerate(({}, {}, {"sharpness": 10.0}, {"sharpness": 2})):
        client.emit("explain", {"id": n, "seq": 1, "method": "grad_cam", "settings": settings})
        client.one("explanation", id=n)
    assert len(looked) == 1, "once for the new sharpness, never for what was looked at already"


def test_long_explanations_get_better_and_can_be_stopped(client: Client) -> None:
    client.frame(colour("red"), seq=1, keep=True)
    client.emit("explain", {"id": "a", "seq": 1, "method": "toy_counting", "params": {"steps": 4}})
    client.one("explanation", id="a", done=True)
    assert [e["progress"] for e in client.all("explanation", id="a")] == [0.25, 0.5, 0.75, 1]
    client.emit("explain", {"id": "b", "seq": 1, "method": "toy_counting", "params": {"steps": 1000}})
    client.one("explanation", id="b")
    client.emit("stop", {"id": "b"})
    until(lambda: engine_of(client.live).waiting()["requests"] == 0, "the end")
    heard = len(client.all("explanation", id="b"))
    client.frame(colour("red"), seq=2)
    assert len(client.all("explanation", id="b")) == heard < 900 and not client.all("error")


@pytest.mark.parametrize("check, curves", [
    ("curves", {"deletion_black", "deletion_blur", "insertion_blur"}), ("sanity", {"rank correlation"})])
def test_an_explanation_is_checked_step_by_step(client: Client, check: str, curves: set[str]) -> None:
    client.frame(colour("red"), seq=1, keep=True)
    client.emit("explain", {"id": "c", "seq": 1, "method": "saliency", "check": check, "target": "class:0"})
    said = client.one("explanation", id="c", done=True)
    assert set(said["curves"]) == curves and said["numbers"] and said["title"] == "why red"
    assert (said["check"], said["method"], said["target"]) == (check, "saliency", "class:0")
    progress = [e["progress"] for e in client.all("explanation", id="c")]
    assert progress == sorted(progress) and len(progress) > 1


def test_a_new_request_of_the_same_id_replaces_the_old_one(client: Client) -> None:
    client.frame(colour("red"), seq=1, keep=True)
    client.emit("explain", {"id": 5, "seq": 1, "method": "toy_counting", "params": {"steps": 1000}})
    client.one("explanation", id=5)
    client.emit("explain", {"id": 5, "seq": 1, "method": "saliency"})
    client.one("explanation", id=5, method="saliency")
    methods = [e["method"] for e in client.all("explanation", id=5)]
    assert methods.count("saliency") == 1 and methods[-1] == "saliency"


@pytest.mark.parametrize("message, code, words", [
    ({"id": "a", "seq": 99, "method": "saliency"}, "gone", "freeze or upload it again"),
    ({"id": "a", "seq": None, "method": "saliency"}, "gone", "no longer kept"),
    ({"id": "a", "seq": [], "method": "saliency"}, "gone", "no longer kept"),
    ({"id": "a", "seq": 1, "method": "nothing"}, "bad_input", "there are"),
    ({"id": "a", "seq": 1, "method": ["x"]}, "bad_input", "there are"),
    ({"id": "a", "seq": 1, "method": "toy_counting", "params": {"steps": 0}}, "bad_input", "from 1 to 1000"),
    ({"id": "a", "seq": 1, "method": "toy_counting", "params": {"speed": 0}}, "bad_input", "steps"),
    ({"id": "a", "seq": 1, "method": "toy_counting", "params": 7}, "bad_input", "names with values"),
    ({"id": "a", "seq": 1, "method": "saliency", "target": "class:17"}, "bad_input", "from 0 to 2"),
    ({"id": "a", "seq": 1, "method": "saliency", "target": "box:0/tail"}, "bad_input", "class:INDEX"),
    ({"id": "a", "seq": 1, "method": "saliency", "target": 3}, "bad_input", "text"),
    ({"id": "a", "seq": 1, "method": "saliency", "target": "x" * 501}, "bad_input", "500"),
    ({"id": "a", "seq": 1, "method": "saliency", "check": "truth"}, "bad_input", "curves, sanity"),
    ({"id": "a", "seq": 1, "method": "saliency", "edited": True}, "gone", "erase something first"),
    ({"id": "a", "seq": 1, "method": "saliency", "model": "toy-away"}, "offline", "connect and try again"),
    ({"id": "a", "seq": 1, "method": "toy_failing"}, "internal", "nothing of yours is lost"),
], ids=range(16))
def test_an_impossible_request_gets_a_sentence(client: Client, message: dict[str, Any], code: str,
                                               words: str) -> None:
    client.frame(colour("red"), seq=1, keep=True)
    client.emit("explain", message)
    said = client.one("error", id="a")
    assert said["code"] == code and words in said["message"] and "seq" not in said
    assert client.frame(colour("red"), seq=2)["classes"]


def test_requests_without_an_id_and_messages_without_sense_are_answered(client: Client) -> None:
    client.frame(colour("red"), seq=1, keep=True)
    senseless: list[tuple[str, Any]] = [
        ("explain", ({"seq": 1},)), ("explain", ()), ("explain", ("x", 2)), ("edit", (None,)),
        ("edit", ({"id": "a", "seq": 1, "mask": "text"},)), ("configure", (7,)), ("configure", ({}, {})),
        ("stop", ()), ("stop", ({"id": {}},)), ("frame", ([],)), ("frame", ())]
    for event, arguments in senseless:
        client.emit(event, *arguments)
    assert client.frame(colour("red"), seq=2)["classes"]


def test_a_failure_nobody_foresaw_is_calm_outside_and_whole_in_the_log(
        client: Client, caplog: pytest.LogCaptureFixture) -> None:
    client.emit("configure", {"model": "toy-broken"})
    client.one("ready", labels={"toy-broken": {"0": "red", "1": "green", "2": "blue"}})
    with caplog.at_level(logging.DEBUG):
        said = client.frame(colour("blue"), seq=3)
    assert said["code"] == "internal" and "blue" not in said["message"]
    assert "blue cannot be borne" in caplog.text and "Traceback" in caplog.text
    assert client.frame(colour("red"), seq=4)["classes"][0]["label"] == "red"


def test_erasing_looks_again_and_keeps_both_sides(client: Client) -> None:
    picture = colour("red")
    picture[HOLE] = (0, 0, 255)
    client.frame(picture, seq=1, keep=True)
    client.emit("edit", {"id": "e", "seq": 1, "mask": png(HOLE), "fill": "telea"})
    said = client.one("result", id="e")
    assert said["edited"] is True and said["before"]["classes"][0]["label"] == "red"
    red = {c["label"]: c["probability"] for c in said["classes"]}
    was = {c["label"]: c["probability"] for c in said["before"]["classes"]}
    assert red["blue"] < was["blue"], "the blue hole is gone"
    assert said["image"][:3] == b"\xff\xd8\xff" and said["ms"]["fill"] > 0
    for side in (False, True):
        client.emit("explain", {"id": f"x{side}", "seq": 1, "method": "saliency", "edited": side})
        assert client.one("explanation", id=f"x{side}").get("edited", False) is side
    client.emit("edit", {"id": "undo", "seq": 1, "mask": b"", "fill": "telea"})
    assert client.one("result", id="undo")["edited"] is False
    client.emit("explain", {"id": "y", "seq": 1, "method": "saliency", "edited": True})
    assert client.one("error", id="y")["code"] == "gone"


@pytest.mark.parametrize("edit, words", [
    ({"mask": png(np.zeros((48, 64), bool)), "fill": "telea"}, ""),
    ({"mask": png(np.ones((48, 64), bool)), "fill": "telea"}, ""),
    ({"mask": png(np.ones((10, 10), bool)), "fill": "telea"}, "64 x 48"),
    ({"mask": b"junk", "fill": "telea"}, "PNG"),
    ({"mask": png(HOLE), "fill": "nothing"}, "telea"),
    ({"mask": png(HOLE), "fill": "telea", "params": {"radius": 999}}, "radius"),
    ({"mask": png(HOLE), "fill": "telea", "picture": "0123456789abcdef"}, "another picture"),
], ids=range(7))
def test_an_impossible_edit_gets_a_sentence_and_nothing_is_lost(
        client: Client, edit: dict[str, Any], words: str) -> None:
    client.frame(colour("red"), seq=1, keep=True)
    client.emit("edit", {"id": "good", "seq": 1, "mask": png(HOLE), "fill": "telea"})
    client.one("result", id="good")
    client.emit("edit", {"id": "bad", "seq": 1, **edit})
    said = client.one("error", id="bad")
    assert said["code"] == "bad_input" and words in said["message"] and "seq" not in said
    client.emit("explain", {"id": "x", "seq": 1, "method": "saliency", "edited": True})
    assert client.one("explanation", id="x")["edited"] is True


def test_a_model_on_its_way_is_told_about_and_others_are_not_held_up(live: Live) -> None:
    waiting, other = Client(live).here(), Client(live).here()
    waiting.emit("configure", {"model": "toy-slow"})
    said = waiting.one("progress", what="fetch")
    assert (said["name"], said["done"], said["total"]) == ("toy-slow", 3_000_000, 10_000_000)
    assert said["text"] == "Fetching slow.weights: 3.0 of 10.0 MB"
    for n in (1, 2):
        waiting.emit("frame", {"seq": n, "jpeg": jpeg(colour("red"))})
        assert other.frame(colour("green"))["classes"][0]["label"] == "green"
    assert waiting.one("dropped", seq=1)["code"] == "newer" and not waiting.all("result")
    assert not other.all("progress", name="toy-slow")
    toy_room.GATE.set()
    assert waiting.one("result", seq=2)["model"] == "toy-slow"
    assert waiting.all("ready")[-1]["configured"]["model"] == "toy-slow"
    assert toy_room.LOADS.count("toy-slow") == 1


def test_changing_ones_mind_while_a_model_is_on_its_way(client: Client) -> None:
    client.emit("configure", {"model": "toy-slow"})
    client.emit("frame", {"seq": 1, "jpeg": jpeg(colour("red"))})
    client.emit("configure", {"model": "toy"})
    client.emit("configure", {"model": "toy-broken"})
    assert client.one("dropped", seq=1)["code"] == "configuring"
    toy_room.GATE.set()
    client.one("ready", labels={"toy-broken": {"0": "red", "1": "green", "2": "blue"}})
    assert client.frame(colour("red"), seq=2)["model"] == "toy-broken"
    assert not [r for r in client.all("ready") if r["configured"]["model"] == "toy-slow"]


def test_a_model_that_cannot_come_leaves_everything_as_it_was_and_is_tried_again(client: Client) -> None:
    for attempt in (1, 2):
        client.emit("configure", {"model": "toy-away"})
        said = until(lambda n=attempt: client.all("error")[n - 1:], "an error")[0]  # type: ignore[misc]
        assert said["code"] == "offline" and "nothing answers" in said["message"] and "seq" not in said
        until(lambda n=attempt: len(client.all("ready")) == 2 + n, "ready")         # type: ignore[misc]
        assert client.all("ready")[-1]["configured"]["model"] == "toy"
    assert toy_room.LOADS.count("toy-away") == 2
    assert client.frame(colour("red"))["model"] == "toy"


def test_one_frame_may_ask_another_model(client: Client) -> None:
    assert client.frame(colour("red"), keep=True, seq=1, model="toy-broken")["model"] == "toy-broken"
    assert client.frame(colour("red"), seq=2)["model"] == "toy"
    client.emit("explain", {"id": "a", "seq": 1, "method": "saliency", "model": "toy-broken"})
    assert client.one("explanation", id="a")["done"]


def test_goodbye_answers_what_waits(live: Live) -> None:
    client = Client(live).here()
    client.emit("frame", {"seq": 1, "jpeg": jpeg(colour("red")), "model": "toy-slow"})
    live.close()
    assert client.one("server_closing")["message"]
    assert client.one("dropped", seq=1)["code"] == "closing"
    live.close()
    assert not [t for t in threading.enumerate() if t.name == "models" and t.is_alive()
                and t is engine_of(live)._scheduler._thread]


def test_what_is_explained_is_said_in_words() -> None:
    labels = {0: "bus", 1: "truck", 2: "dog", 3: "cat"}
    said = {messages.title(target, labels): target for target in (
        Target(0), Target(0, versus=1), Target(0, anchor=4, part="left"),
        Target(0, anchor=4, part="objectness"), Target(2, words=(0, 2), position=1),
        Target(3, words=(0, 2), position=1, versus=2), Target(words=(0, 2)))}
    assert list(said) == ["why bus", "why bus and not truck", "left side of bus",
                          "why there is an object at all", "why the word 'dog'",
                          "why the word 'cat' and not 'dog'", "why this caption"]


def test_a_map_that_travels_is_small() -> None:
    assert messages.small(np.ones((640, 480)), 256).shape == (256, 192)
    assert messages.small(np.ones((224, 224)), 256).shape == (224, 224)
    assert messages.small(np.ones((2000, 1)), 100).shape == (100, 1)


def test_progress_of_a_download_is_told_ten_times_a_second_at_most(
        client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, progress: Any) -> Any:
        for done in range(1, 1001):
            progress("big.weights", done, 1000)
        return toy_room.Toy(toy_room.CATALOG[name])

    monkeypatch.setattr(toy_room, "load", load)
    monkeypatch.setattr(shelf, "PROGRESS_EVERY", 60.0)
    client.emit("configure", {"model": "toy-broken"})
    client.one("ready", labels={"toy-broken": {"0": "red", "1": "green", "2": "blue"}})
    assert [p["done"] for p in client.all("progress", what="fetch")][-1] == 1000
    assert len(client.all("progress", what="fetch")) <= 2
