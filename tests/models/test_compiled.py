"""Seeing compiled changes no answer, no gradient and no hook, and no broken file or folder stops it."""
from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import explainers
import models
from explainers import Look, Question, parchgrad, resolve
from models import compiled, nets, store
from models.base import Features, Model
from models.classifier import zoo_net
from serving import shelf
from tests.conftest import read_rgb

LITE0, TINY = "efficientnet-lite0", "yolov3-tiny"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where exports are kept, and nothing else looks."""
    monkeypatch.setattr("models.store.cache_folder", lambda: tmp_path)
    compiled._not_kept.cache_clear()
    return tmp_path / "compiled"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Model, Model]]:
    """A model as it is loaded, and compiled."""
    made: dict[str, tuple[Model, Model]] = {}

    def get(name: str) -> tuple[Model, Model]:
        if name not in made:
            made[name] = models.load(name), models.load(name)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("models.store.cache_folder", lambda: tmp_path_factory.mktemp("cache"))
                compiled.compile_model(made[name][1])
            assert [compiled.state_of(m) for m in made[name]] == ["torch: not compiled", "ONNX Runtime"]
        return made[name]

    return get


def small(width: int = 4) -> Any:
    """A convolution, its batch norm with statistics of its own, and what is behind them."""
    torch.manual_seed(0)
    net: Any = nn.Sequential(nn.Conv2d(3, width, 3, 2), nn.BatchNorm2d(width), nn.ReLU(),
                             nn.Conv2d(width, 5, 1))
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    return net.eval().requires_grad_(False)


def body(net: nn.Module) -> compiled.Body:
    """Two outputs: what a net says, and what its first layer says."""
    return compiled.Body(net, lambda net: lambda x: Features((net(x),), (net[0](x),)), 32)


def export(net: nn.Module) -> bytes:
    return compiled.exported(net, body(net).cut(net), 32)


def plain(net: nn.Module) -> compiled.Body:
    return compiled.Body(net, lambda net: lambda x: Features((net(x),)), 32)


def seen(body: Callable[[Tensor], Features], count: int = 3) -> Features:
    with torch.no_grad():
        return body(torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(count)))


def pictures(photographs: dict[str, np.ndarray], data: Path) -> Iterator[np.ndarray]:
    yield from photographs.values()
    yield from map(read_rgb, sorted((data / "imagenet").glob("*.jpg"))[::15])


@pytest.mark.parametrize("name", [LITE0, TINY])
def test_every_photograph_gets_the_same_answer(name: str, both: Any, photographs: dict[str, np.ndarray],
                                               data: Path) -> None:
    slow, fast = both(name)
    for frame in pictures(photographs, data):
        a, b = Look(slow, frame), Look(fast, frame)
        compiled.close(b.features, a.features)
        assert not any(t.requires_grad for t in b.features.tensors)
        assert [c.index for c in a.prediction.classes] == [c.index for c in b.prediction.classes]
        np.testing.assert_allclose([c.probability for c in b.prediction.classes],
                                   [c.probability for c in a.prediction.classes], atol=1e-4)
        assert [(x.index, x.anchor) for x in a.prediction.boxes] == \
            [(x.index, x.anchor) for x in b.prediction.boxes]
        for ours, theirs in zip(b.prediction.boxes, a.prediction.boxes, strict=True):
            np.testing.assert_allclose(ours.box, theirs.box, atol=1e-3)
            assert ours.confidence == pytest.approx(theirs.confidence, abs=1e-4)


@pytest.mark.parametrize("name", [LITE0, TINY])
def test_a_map_and_a_gradient_are_those_of_the_plain_net(name: str, both: Any,
                                                         photographs: dict[str, np.ndarray]) -> None:
    """Grad-CAM and ODAM go back from compiled features, saliency through the net without batch norms."""
    slow, fast = both(name)
    for method, off in ((explainers.preferred(fast), 1e-4), ("saliency", 1e-2)):    # a ReLU may turn over
        a, b = (last(Look(m, photographs["bus"]), method) for m in (slow, fast))
        assert np.abs(a).max() > 0 and np.abs(a - b).max() < off * np.abs(a).max()
        assert np.median(np.abs(a - b)) < 1e-5 * np.abs(a).max()


def last(look: Look, method: str) -> np.ndarray:
    *_, e = explainers.steps(look, method, resolve(Question(), look), {})
    return e.heat


@pytest.mark.parametrize("name", ["resnet50", "vit_b_16", "swin_t", "convnext_tiny"])
def test_torchvisions_nets_compile(name: str, folder: Path) -> None:
    torch.manual_seed(0)
    agree(zoo_net(name, weights=False), 224)


def agree(model: Any, height: int, width: int | None = None) -> None:
    x = torch.rand(2, 3, height, width or height, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model.body.cut(model.net)(x)
        model.body.compile()
        assert model.body.state == "ONNX Runtime" and not model.net.training
        compiled.close(model.encode(x), before)
        compiled.close(model.encode(x[1:]), before.each(lambda t: t[1:]))
        with compiled.in_torch():
            compiled.close(model.encode(x), before)
    if model.body._folded:                     # what gradients are made of
        compiled.close(model.body._folded(x), before)


def test_the_torch_net_is_left_as_it_is(folder: Path) -> None:
    net = small()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    one = body(net)
    one.compile()
    assert one.state == "ONNX Runtime" and list(net.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert not any(m.training for m in net.modules())
    assert not any(w.requires_grad for w in net.parameters())


def test_who_wants_a_gradient_or_another_size_gets_torch(folder: Path) -> None:
    one = body(small())
    one.compile()
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    assert one(x).maps[0].requires_grad
    with torch.no_grad():
        assert one(x).maps[0].shape == one(x.detach()).maps[0].shape
        assert one(torch.rand(1, 3, 48, 40)).maps[0].shape == (1, 5, 23, 19)
    twice = body(small().double())
    twice.compile()
    assert twice.state.startswith("torch: ")
    with torch.no_grad():
        assert twice(torch.rand(1, 3, 32, 32).double()).maps[0].dtype == torch.float64


def test_hooks_fire(folder: Path) -> None:
    net = small()
    one, fired = body(net), list[int]()
    one.compile()
    expected = seen(one)
    for hang in (net[0].register_forward_hook, net[0].register_forward_pre_hook):
        handle = hang(lambda *_: fired.append(1))
        compiled.close(seen(one), expected)
        handle.remove()
    assert len(fired) == 4, "twice each: the first convolution is called for the map and for the rest"
    handle = net[1].register_full_backward_hook(lambda *_: fired.append(2))
    one(torch.rand(1, 3, 32, 32, requires_grad=True)).maps[0].sum().backward()
    handle.remove()
    assert fired[4:] == [2]
    seen(one)
    assert len(fired) == 5


def test_weights_may_have_gradients(folder: Path) -> None:
    net = small()
    one = body(net)
    one.compile()
    net.requires_grad_(True)
    one(torch.rand(1, 3, 32, 32)).maps[0].sum().backward()
    assert net[0].weight.grad is not None and net[1].weight.grad is not None


def test_parchgrad_reaches_the_same_convolutions(both: Any, photographs: dict[str, np.ndarray]) -> None:
    slow, fast = both(LITE0)
    x = fast.prepare(photographs["cat"]).x
    assert parchgrad.reached(fast, fast.net, x) == parchgrad.reached(slow, slow.net, x)
    a, b = (last(Look(m, photographs["cat"]), "parchgrad") for m in (slow, fast))
    np.testing.assert_allclose(b, a, atol=1e-6 * np.abs(a).max())


def test_a_redrawn_copy_is_another_net_and_plain(both: Any, photographs: dict[str, np.ndarray]) -> None:
    _, fast = both(LITE0)
    other = fast.randomised(1.0, seed=0)
    assert other.body.state == "torch: not compiled"
    x = fast.prepare(photographs["cat"]).x
    with torch.no_grad(), pytest.raises(ValueError, match="differs from torch"):
        compiled.close(other.encode(x), fast.encode(x))


def test_an_export_is_kept_and_taken_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body(small()).compile()
    (file,) = folder.iterdir()
    before = file.read_bytes()
    monkeypatch.setattr(compiled, "exported", never)
    again = body(small())
    again.compile()
    assert again.state == "ONNX Runtime" and file.read_bytes() == before
    assert again.bytes > 0


def never(*_: Any) -> bytes:
    raise AssertionError("nobody may export here")


@pytest.mark.parametrize("spoilt", [b"", b"no such thing", "half", "another"])
def test_a_spoilt_export_is_made_anew(folder: Path, spoilt: bytes | str, caplog: Any) -> None:
    """Also one that is whole and says something else."""
    first = body(small())
    first.compile()
    (file,) = folder.iterdir()
    good = file.read_bytes()
    if spoilt == "another":
        other = small()
        other[0].weight *= 1.01
        spoilt = export(other)
    file.write_bytes(good[:len(good) // 2] if spoilt == "half" else spoilt)   # type: ignore[arg-type]
    again = body(small())
    again.compile()
    assert again.state == "ONNX Runtime" and file.read_bytes() == good
    assert "is spoilt and is made anew" in caplog.text
    compiled.close(seen(again), seen(first))


def test_an_export_that_says_something_else_is_given_up(folder: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, other, calls = body(small()), small(), list[int]()
    other[3].bias += 1
    made = export(other)

    def again(*_: Any) -> bytes:
        calls.append(1)
        return made

    monkeypatch.setattr(compiled, "exported", again)
    before = seen(wrong)
    wrong.compile()
    wrong.compile()
    assert calls == [1] and "differs from torch" in wrong.state
    assert not folder.exists(), "what is wrong is not kept"
    compiled.close(seen(wrong), before)


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                         caplog: Any) -> None:
    """A file lies where the folder should be: root may write everywhere else."""
    (tmp_path / "compiled").write_text("in the way")
    monkeypatch.setattr("models.store.cache_folder", lambda: tmp_path)
    compiled._not_kept.cache_clear()
    for width in (4, 6):
        one = body(small(width))
        one.compile()
        assert one.state == "ONNX Runtime" and seen(one).maps[0].shape == (3, 5, 15, 15)
    assert caplog.text.count("nothing can be kept in") == 1


def test_a_full_disk_leaves_no_part_behind(folder: Path, monkeypatch: pytest.MonkeyPatch,
                                           caplog: Any) -> None:
    whole = Path.write_bytes

    def full(self: Path, made: bytes) -> int:
        whole(self, made[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    one = body(small())
    one.compile()
    assert one.state == "ONNX Runtime" and not list(folder.iterdir())
    assert "No space left on device" in caplog.text and "SEEWHY_CACHE" in caplog.text


def test_what_nobody_used_for_months_is_thrown_away(folder: Path) -> None:
    folder.mkdir()
    for name, days in (("old.onnx", 91), ("new.onnx", 1), ("left.part", 91)):
        (folder / name).write_bytes(b"x")
        then = time.time() - days * 86400
        os.utime(folder / name, (then, then))
    body(small()).compile()
    assert len(list(folder.iterdir())) == 2 and (folder / "new.onnx").exists()


class Unheard(nn.Module):
    """What no exporter knows."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.i1e(x)


def test_what_cannot_be_exported_stays_torch_and_says_why(folder: Path, caplog: Any, capfd: Any) -> None:
    one = plain(Unheard())
    with caplog.at_level(logging.WARNING):
        one.compile()
    assert one.state.startswith("torch: Exporting the operator") and "i1e" in one.state
    assert "Unheard is not compiled and stays slower" in caplog.text
    assert capfd.readouterr().out == "", "others read JSON there"
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(one(x).maps[0], torch.special.i1e(x))


def test_batch_norms_that_do_not_follow_their_convolution_stay(folder: Path) -> None:
    class Backwards(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[0](self[1](x))

    net: Any = Backwards(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    net[1].running_mean.normal_()
    one = plain(net.eval().requires_grad_(False))
    one.compile()
    assert one.state == "ONNX Runtime" and one._folded is None


def test_a_folded_copy_shares_what_it_does_not_change() -> None:
    net = small()
    twin: Any = nets.folded(net)
    assert twin[3].weight is net[3].weight and isinstance(twin[1], nn.Identity)
    assert isinstance(net[1], nn.BatchNorm2d) and twin[0].weight is not net[0].weight
    assert nets.folded(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())) is None


def test_threads_may_look_and_compile_at_once(folder: Path) -> None:
    one, expected, problems = body(small()), seen(body(small())), list[Exception]()

    def work(compiles: bool) -> None:
        try:
            if compiles:
                one.compile()
            for _ in range(200):
                compiled.close(seen(one), expected)
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(n % 2 == 0,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems and one.state == "ONNX Runtime"


def test_torch_is_asked_for_in_one_thread_alone(folder: Path) -> None:
    one, said = body(small()), list[int]()
    one.compile()

    def session(x: Tensor) -> Features:
        said.append(len(x))
        return Features()

    one._session = session
    with compiled.in_torch():
        seen(one)
        other = threading.Thread(target=seen, args=(one,))
        other.start()
        other.join()
    assert said == [3]


@pytest.mark.parametrize("compiling", [True, False])
def test_a_model_on_the_shelf_is_compiled_once_it_is_here(compiling: bool, folder: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "FIRST", 0.0)
    model = models.load(LITE0)
    monkeypatch.setattr("models.load", lambda *_: model)
    before = shelf.weight(model)
    assert shelf.Shelf((), 10**9, compiling, lambda _: None).ask(LITE0).result(60) is model
    for thread in threading.enumerate():
        if thread.name == f"loading {LITE0}":
            thread.join(60)
    assert (compiled.state_of(model) == "ONNX Runtime") == compiling
    assert (shelf.weight(model) > before) == compiling, "the same weights twice"
    assert store.noted(LITE0) == ("ONNX Runtime" if compiling else None)


def test_models_without_a_body_have_nothing_to_compile(linear: Any) -> None:
    compiled.compile_model(linear)
    assert compiled.state_of(linear) == ""
