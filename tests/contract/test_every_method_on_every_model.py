"""What every method owes every model: METHODS x the embedded models, torchvision's, and sealed ones."""
from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import explainers
import models
from explainers import METHODS, faith, lacks, offered, preferred
from explainers.base import Look, Method, steps
from explainers.gradient import torch_net
from models.base import BadInput, Model, Net, Parameter
from models.classifier import zoo_net
from tests.toy import Linear, Sealed, asked

EMBEDDED = [name for name, info in models.catalog().items() if info.embedded]
FIRST = {models.default(task) for task in ("classify", "detect", "caption")}
SEALED = {f"sealed-{model}": model for model in ("efficientnet-lite0", "yolov3-tiny")}   # see tests/toy.py
RANDOM = ("resnet50", "vit_b_16", "swin_t", "convnext_tiny")                             # random weights
# A task's second model shares the code of the first: the quick groups show that its parts fit.
CASES = [(model, method) for model in [*EMBEDDED, *RANDOM, *SEALED] for method, m in METHODS.items()
         if models.catalog()[SEALED.get(model, model)].task in m.tasks
         and (model in FIRST or model in SEALED or m.group in ("maps", "gradients"))]
LONG = ("samples", "steps", "masks", "iterations", "randoms", "grid")
# Methods that a model cannot serve, with the word that its sentence must hold.
REFUSED = {("guided_backpropagation", "efficientnet-lite0"): "ReLU6",
           ("guided_backpropagation", "yolov3-tiny"): "LeakyReLU",
           ("guided_backpropagation", "efficientnetv2-lstm"): "SiLU",
           ("guided_backpropagation", "efficientnet-lite0-lstm"): "ReLU6",
           ("attention_rollout", "efficientnet-lite0"): "vit_b_16",
           ("attention_rollout", "resnet50"): "vit_b_16",
           ("attention_rollout", "swin_t"): "vit_b_16",
           ("attention_rollout", "convnext_tiny"): "vit_b_16",
           **{("guided_backpropagation", model): "GELU" for model in RANDOM[1:]},
           **{("parchgrad", model): f"--model {model}" for model in RANDOM},
           **{(name, model): "take" for model, name in CASES if model in SEALED and METHODS[name].needs}}


def short(method: Method) -> dict[str, Any]:
    """Parameters with which a method is over soon."""
    few = {p.name: p.low for p in method.parameters if p.name in LONG}
    sizes = {"window": 0.5, "stride": 0.5} if method.name == "occlusion" else {}
    return {**few, **sizes, **({"fill": "mean_colour"} if method.name == "needs" else {})}


@pytest.fixture(scope="module")
def looks(photographs) -> Iterator[dict[str, Look]]:
    """Each model's look at one picture, an odd cut of the bus so that letterboxes have uneven padding."""
    seen: dict[str, Look] = {}
    yield seen


def look_of(looks: dict[str, Look], name: str, photographs: dict[str, np.ndarray]) -> Look:
    if name not in looks:
        model = (Sealed(look_of(looks, SEALED[name], photographs).model) if name in SEALED else
                 zoo_net(name, weights=False) if name in RANDOM else models.load(name))
        frame = np.ascontiguousarray(photographs["bus"][200:801:2, :777:2])
        looks[name] = Look(model, frame)
    return looks[name]


def hooks(model: Model) -> int:
    """How many hooks hang on the torch net behind a model."""
    modules = model.net.modules() if isinstance(model, Net) else ()
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) + len(
        m._backward_pre_hooks) for m in modules)


def finished(look: Look, name: str, params: dict[str, Any]) -> explainers.Explanation:
    """What comes out for the best class or box, and for a word of a caption."""
    text = "word:1" if look.model.info.task == "caption" else None
    *_, last = steps(look, name, asked(text, look), params)
    return last


@pytest.mark.parametrize(("model", "name"), CASES)
def test_contract(model: str, name: str, looks, photographs) -> None:
    look, method = look_of(looks, model, photographs), METHODS[name]
    before = look.model.predict(look.features, look.canvas, **look.settings)
    missing = lacks(method, look.model)
    assert (missing is None) == (method.needs <= offered(look.model)) == ((name, model) not in REFUSED)
    if missing is not None:
        with pytest.raises(BadInput, match=REFUSED[name, model]) as refused:
            finished(look, name, short(method))
        assert str(refused.value) == missing
        assert look.model.info.title in missing or look.model.info.name in missing
        assert hooks(look.model) == 0
        return
    e = finished(look, name, short(method))
    assert e.heat.shape == look.canvas.size and e.heat.dtype == np.float32
    assert np.isfinite(e.heat).all()
    assert e.done and e.method == name and e.signed == method.signed and e.raw_max == np.abs(e.heat).max()
    assert method.signed or e.heat.min() >= 0
    assert e.empty or e.heat.std() > 0
    padding = e.heat.copy()
    padding[look.canvas.inside] = 0
    assert not padding.any() and all(m.shape == look.canvas.size for m in e.maps.values())
    for picture in (e.image, *e.images.values()):
        assert picture is None or (picture.shape[2] == 3 and picture.min() >= 0 and picture.max() <= 1)
    assert all(isinstance(v, str) or np.isfinite(v) for v in e.numbers.values()), e.numbers
    assert hooks(look.model) == 0 and not any(f.requires_grad for f in look.features.tensors)
    after = look.model.predict(look.model.encode(look.x), look.canvas, **look.settings)
    assert after.describe() == before.describe(), "the live prediction changed"


@pytest.mark.parametrize(("model", "method"), [("sealed-efficientnet-lite0", "rise"),
                                               ("sealed-yolov3-tiny", "d_rise")])
def test_a_model_that_can_only_be_run_is_explained_and_checked(model: str, method: str, looks,
                                                               photographs) -> None:
    look = look_of(looks, model, photographs)
    assert preferred(look.model) == method
    e = finished(look, method, {"masks": 20})
    judged = faith.curves(look, e, asked(None, look), steps=4)
    assert set(judged.curves) == set(faith.CURVES) and not judged.note
    with pytest.raises(BadInput, match="draws weights anew"):
        next(faith.sanity(look, method, asked(None, look), {}))


@pytest.mark.parametrize("name", [name for model, name in CASES if model == "efficientnet-lite0"
                                  and METHODS[name].group not in ("what if", "checks")
                                  and (name, model) not in REFUSED])
def test_deterministic_under_a_seed(name: str, looks, photographs) -> None:
    look = look_of(looks, "efficientnet-lite0", photographs)
    a, b = (finished(look, name, short(METHODS[name])) for _ in range(2))
    np.testing.assert_allclose(a.heat, b.heat, atol=1e-5 * max(a.raw_max, 1e-9))
    assert {k: v for k, v in a.numbers.items() if isinstance(v, str)} == {
        k: v for k, v in b.numbers.items() if isinstance(v, str)}


@pytest.mark.parametrize("name", list(METHODS))
def test_declared_parameters(name: str) -> None:
    method = METHODS[name]
    assert method.shows.endswith(".") and method.cannot.endswith(".") and method.title
    assert set(method.tasks) <= {"classify", "detect", "caption"}
    for parameter in method.parameters:
        assert parameter.check(parameter.default) == parameter.default
        for bad in _out_of_range(parameter):
            with pytest.raises(BadInput, match=parameter.name):
                parameter.check(bad)


def _out_of_range(parameter: Parameter) -> list[Any]:
    if parameter.choices:
        return ["no such choice", None]
    if isinstance(parameter.default, bool):
        return ["perhaps"]
    assert parameter.low is not None and parameter.high is not None
    return [parameter.low - 1, parameter.high + 1, "many", float("nan")]


def test_unknown_parameters_methods_and_classes_are_refused(linear) -> None:
    frame = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(BadInput, match="it has steps, baseline"):
        explainers.explain(linear, frame, "integrated_gradients", "class:0", stepz=3)
    with pytest.raises(BadInput, match="for classify there are grad_cam"):
        explainers.explain(linear, frame, "grad_camera")
    with pytest.raises(BadInput, match="from 0 to 2"):
        explainers.explain(linear, frame, "saliency", "class:3")


class Broken(Exception):
    """A model that fails in the middle."""


@pytest.mark.parametrize("name", ["parchgrad", "guided_backpropagation"])
def test_no_hook_is_left_when_a_method_fails(name: str, looks, photographs, monkeypatch) -> None:
    model = "resnet50" if name == "guided_backpropagation" else "efficientnet-lite0"
    look = look_of(looks, model, photographs)
    target = asked(None, look)
    within = [m for m in torch_net(look.model).modules() if isinstance(m, torch.nn.BatchNorm2d)][-1]
    seen: list[int] = []

    def fail(*_: Any) -> None:
        seen.append(hooks(look.model))
        raise Broken

    monkeypatch.setattr(within, "forward", fail)
    with pytest.raises(Broken):
        list(steps(look, name, target, {}))
    assert seen[0] > 0 and hooks(look.model) == 0


def test_maps_that_are_not_numbers_or_zero_are_reported(linear) -> None:
    frame = np.full((8, 8, 3), 99, np.uint8)
    linear.weights[0] = 0
    silent = explainers.explain(linear, frame, "saliency", "class:0")
    assert silent.empty and silent.note.startswith("No evidence")
    linear.weights[1] = torch.nan
    broken = explainers.explain(linear, frame, "saliency", "class:1")
    assert not broken.heat.any() and "not numbers" in broken.note


def test_two_hundred_explanations_leave_memory_flat() -> None:
    model = Linear()
    frame = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    names = [n for n, m in METHODS.items() if "classify" in m.tasks and lacks(m, model) is None
             and m.group in ("maps", "gradients", "perturbation", "attacks")]

    def tensors(rounds: int) -> int:
        for turn in range(rounds):
            name = names[turn % len(names)]
            explainers.explain(model, frame, name, "class:0", **short(METHODS[name]))
        gc.collect()
        return sum(1 for o in gc.get_objects() if type(o) is torch.Tensor)

    first = tensors(len(names))
    assert tensors(200) <= first + 2


def test_resident_memory_stays_flat_on_a_real_net(lite0, photographs) -> None:
    def resident() -> float:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * 4096 / 1e6

    look = Look(lite0, photographs["cat"])

    def explained(times: int) -> None:
        for turn in range(times):
            finished(look, "saliency" if turn % 10 == 0 else "layer_cam", {})

    explained(30)
    before = resident()
    explained(200)
    assert resident() < before + 60
