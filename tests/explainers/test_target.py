"""Targets: read without a picture, found in one, and a sentence for whatever cannot be meant."""
from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from explainers import Look, NotInThisPicture, Question, explain, parse, resolve
from models.base import BadInput, Box, ModelInfo, Prediction, Target, Word
from tests.toy import Linear, asked


def detector() -> Look:
    """Two boxes, left and right, and a candidate in the middle."""
    look = Look(Linear(), np.zeros((100, 200, 3), np.uint8))
    look.model.info = replace(look.model.info, task="detect")
    look.prediction = Prediction(
        "detect", candidates=(Box(0, "class 0", 0.1, (90, 40, 110, 60), 3),),
        boxes=(Box(1, "class 1", 0.9, (0, 0, 40, 100), 7), Box(2, "class 2", 0.8, (150, 0, 200, 100), 9)))
    return look


class Speaks(Linear):
    """Says `class 1 class 2`, and knows these words."""

    def __init__(self) -> None:
        super().__init__()
        self.info = ModelInfo("speaks", "caption", "Speaks", True, 0.0, "none", "this test")

    def caption_of(self, text):
        return tuple(self.word(word) for word in text.split())

    def word(self, text):
        if text not in ("0", "1", "2"):
            raise BadInput(f"unknown {text}")
        return int(text)

    def read(self, features, canvas, words):
        return Prediction("caption", words=tuple(Word(i, self.labels[i], 0.5) for i in words))

    def channel_gradients(self, features, target):
        pytest.fail("what is asked about is found without a look at any map")

    def predict(self, features, canvas, **settings):
        return self.read(features, canvas, (1, 2))


@pytest.mark.parametrize(("text", "task", "question"), [
    (None, "classify", Question()), ("", "detect", Question()), ("//", "caption", Question("//")),
    ("class:281/versus:tabby", "classify", Question("class:281/versus:tabby", label="281", versus="tabby")),
    ("class:a:b", "classify", Question("class:a:b", label="a:b")),
    ("box:2/side:left", "detect", Question("box:2/side:left", "box", 2, part="left")),
    ("box", "detect", Question("box", "box")),
    ("candidate:3/objectness", "detect",
     Question("candidate:3/objectness", "candidate", 3, part="objectness")),
    ("near:0.25,1", "detect", Question("near:0.25,1", "near", at=(0.25, 1.0))),
    ("near:1e-7,-0.000", "detect", Question("near:1e-7,-0.000", "near", at=(1e-7, 0.0))),
    ("word:3/versus:cat", "caption", Question("word:3/versus:cat", "word", 3, versus="cat")),
    ("caption/text:", "caption", Question("caption/text:", "caption", caption="")),
])
def test_a_question_is_read_without_a_picture(text: str | None, task: str, question: Question) -> None:
    assert parse(text, task) == question
    assert pickle.loads(pickle.dumps(question)) == question


@pytest.mark.parametrize(("text", "task", "sentence"), [
    ("box:0", "classify", r"^target 'box:0' is not understood for classify: say class:INDEX, with"),
    ("word:1", "detect", "not understood for detect: say box:N, candidate:N or near:X,Y"),
    ("class:3", "caption", "not understood for caption: say word:N or caption"),
    ("box:0/side:middle", "detect", "not understood"), ("box:0/box:1", "detect", "not understood"),
    ("side:left/objectness", "detect", "not understood"), ("caption:3", "caption", "not understood"),
    ("box:²", "detect", "a whole number from 0, got '²'"), ("box:٣", "detect", "got '٣'; say box:0"),
    ("box:-1", "detect", "got '-1'"), ("box:1234567", "detect", "got '1234567'"),
    ("word:x", "caption", "word must be a whole number from 0, got 'x'"), ("word", "caption", "got ''"),
    ("near:1e200,0", "detect", "shares of the picture from 0 to 1, got '1e200,0'"),
    ("near:nan,0", "detect", "from 0 to 1, got 'nan,0'"), ("near:inf,0", "detect", "from 0 to 1"),
    ("near:٠,0", "detect", "from 0 to 1"), ("near:1_0,0", "detect", "from 0 to 1"),
    ("near:0.5", "detect", "from 0 to 1"), ("near:.,.", "detect", "from 0 to 1"),
    ("near:-0.1,0", "detect", "from 0 to 1"), ("near:1.01,0", "detect", "from 0 to 1"),
    ("caption/versus:cat", "caption", "say which, as in word:1/versus:cat"),
    ("caption/text:" + "dog " * 200, "caption", "at most 500 letters, got 813; shorten it"),
])
def test_what_no_picture_could_have_is_a_sentence(text: str, task: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as refused:
        parse(text, task)
    assert not isinstance(refused.value, NotInThisPicture)


def test_no_more_comes_back_than_a_sentence_bears() -> None:
    look = Look(Linear(), np.zeros((8, 8, 3), np.uint8))
    for text in ("x" * 400, "class:" + "9" * 400, "class:" + "y" * 400):
        with pytest.raises(BadInput) as refused:
            asked(text, look)
        assert len(str(refused.value)) < 200 and "…" in str(refused.value)


@pytest.mark.parametrize(("text", "target"), [
    (None, Target(1, anchor=7)), ("box:1", Target(2, anchor=9)), ("candidate:0", Target(0, anchor=3)),
    ("near:0.9,0.5", Target(2, anchor=9)), ("box:1/class:0", Target(0, anchor=9)),
    ("class:class 0/box:1", Target(0, anchor=9)), ("box:0/class:CLASS 2/versus:0", Target(2, 0, 7)),
    ("box:1/side:top", Target(2, anchor=9, part="top")),
    ("objectness", Target(1, anchor=7, part="objectness")),
])
def test_boxes_are_found_in_a_picture(text: str | None, target: Target) -> None:
    assert asked(text, detector()) == target


def test_what_this_picture_lacks_another_may_have() -> None:
    look = detector()
    with pytest.raises(NotInThisPicture, match="box must be from 0 to 1, got 2"):
        asked("box:2", look)
    with pytest.raises(NotInThisPicture, match="candidate must be from 0 to 0, got 1"):
        asked("candidate:1", look)
    look.prediction = Prediction("detect")
    for text in ("", "box:0", "candidate:0", "near:0,0", "class:1"):
        with pytest.raises(NotInThisPicture, match="no box to explain in this picture"):
            asked(text, look)
    with pytest.raises(BadInput, match="no class is called 'zebu'") as refused:
        asked("box:0/class:zebu", look)
    assert not isinstance(refused.value, NotInThisPicture), "no picture has a class that the model has not"


@pytest.mark.parametrize(("text", "sentence"), [
    ("class:3", "class must be from 0 to 2, got 3"),
    ("class:²", "no class is called '²'; use an index from 0 to 2"),
    ("class:٣", "no class is called '٣'"), ("class:-1", "no class is called '-1'"),
    ("class:lass 1", r"no class is called 'lass 1'; did you mean 1 class 1\?"),
    ("versus:9", "from 0 to 2, got 9"),
])
def test_a_class_that_the_model_has_not_is_no_matter_of_the_picture(text: str, sentence: str) -> None:
    look = Look(Linear(), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(BadInput, match=sentence) as refused:
        asked(text, look)
    assert not isinstance(refused.value, NotInThisPicture)


def test_two_classes_of_one_name_are_told_apart_by_their_numbers() -> None:
    look = Look(Linear(), np.zeros((8, 8, 3), np.uint8))
    look.model.labels = {0: "crane", 1: "crane", 2: "cat"}
    with pytest.raises(BadInput, match="2 classes are called 'crane': say which, 0 or 1"):
        asked("class:crane", look)
    assert asked("class:Cat/versus:1", look) == Target(2, versus=1)


def test_words_and_captions() -> None:
    look = Look(Speaks(), np.zeros((8, 8, 3), np.uint8))
    assert asked(None, look) == asked("caption", look) == Target(words=(1, 2))
    assert asked("word:1/versus:0", look) == Target(2, versus=0, position=1, words=(1, 2))
    assert asked("word:0/text:2 2 1", look) == Target(2, position=0, words=(2, 2, 1))
    with pytest.raises(NotInThisPicture, match="from 0 to 1 in 'class 1 class 2', got 2"):
        asked("word:2", look)
    with pytest.raises(BadInput, match="from 0 to 0 in 'class 0', got 2") as refused:
        asked("word:2/text:0", look)
    assert not isinstance(refused.value, NotInThisPicture), "a typed caption is every picture's"
    for text in ("word:0/versus:7", "caption/text:1 7"):
        with pytest.raises(BadInput, match="unknown 7"):
            asked(text, look)
    look.prediction = Prediction("caption")
    with pytest.raises(NotInThisPicture, match="nothing was said"):
        asked(None, look)


def test_explain_takes_text_a_target_or_nothing() -> None:
    frame = np.full((16, 16, 3), 90, np.uint8)
    best = resolve(Question(), Look(Linear(), frame)).index
    for target, index in ((None, best), ("class:2", 2), (Target(1), 1)):
        found = explain(Linear(), frame, "saliency", target).target
        assert found is not None and found.index == index
