"""Seeing against whatever else could run the same net here, and gradients against torch as it comes."""
from __future__ import annotations

import copy
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import models
from bench.browser import photograph
from bench.loaded import loaded
from bench.table import Row, paired, took_at_most
from explainers import Look, Question, resolve
from explainers.pixels import pixel_gradient
from models import compiled
from models.base import THREADS, Features
from models.compiled import Compiles, Seeing, Tensors

ROUNDS = 15                  # of all ways in turn, to find the fastest rival
Way = Callable[[Tensor], tuple[Tensor, ...]]


def rows(quick: bool) -> Iterator[Row]:
    """Every embedded model whose encode() is compiled."""
    warnings.filterwarnings("ignore")
    for name in (models.default(task) for task in ("classify", "detect", "caption")):
        model = loaded(name)
        if isinstance(model, Compiles):
            yield from seeing(model, photograph("bus"), quick)
            yield from gradient(model, photograph("bus"))


def seeing(model: Any, frame: Any, quick: bool) -> Iterator[Row]:
    """encode() without a gradient over the fastest rival, and over torch as it comes."""
    x = model.prepare(frame).x
    expected, notes = untouched(model)(x), [f"ours is {compiled.state_of(model)}"]
    ways: dict[str, Way] = {}
    for rival, make in RIVALS.items():
        if quick and make is inductor:
            notes.append(f"{rival} left out, compiling takes half a minute")
            continue
        try:
            way = make(model, x)
            with torch.no_grad():
                compiled.close(Features(tuple(way(x))), Features(expected.tensors))
            ways[rival] = way
        except Exception as problem:           # not here, or not the same: it cannot be compared
            notes.append(f"{rival} left out: {compiled.reason(problem)}")
    plain = untouched(model)
    took = in_turn({"ours": model.encode, "torch as it comes": plain, **ways}, x)
    best = min(ways, key=lambda rival: took[rival])
    told = ", ".join(f"{way} {ms:.1f} ms" for way, ms in took.items())
    with torch.no_grad():
        yield took_at_most(f"{model.info.name}: encode / the fastest of its rivals", lambda: model.encode(x),
                           lambda: ways[best](x), 1.05, "; ".join([told, *notes]))
        yield Row(f"{model.info.name}: encode / torch as it comes",
                  paired(lambda: model.encode(x), lambda: plain(x)))


def gradient(model: Any, frame: Any) -> Iterator[Row]:
    """A gradient to the pixels, channels last and without batch norms, over torch as it comes."""
    look = Look(model, frame)
    target, plain = resolve(Question(), look), untouched(model)

    def ours() -> None:
        pixel_gradient(look.forward(target), look.x)

    def theirs() -> None:
        pixel_gradient(lambda x: model.score(plain(x), target), look.x)

    yield Row(f"{model.info.name}: gradient to the pixels / torch as it comes", paired(ours, theirs))


def untouched(model: Any) -> Seeing:
    """The same net in torch with the colours of a pixel apart, as weights are read from their file."""
    return model.body.cut(copy.deepcopy(model.body.net).to(memory_format=torch.contiguous_format))


def in_turn(ways: dict[str, Callable[[Tensor], Any]], x: Tensor) -> dict[str, float]:
    """The median milliseconds of each, all of them measured in turn."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    with torch.no_grad():
        for _ in range(ROUNDS):
            for name, way in ways.items():
                start = time.perf_counter()
                way(x)
                times[name].append((time.perf_counter() - start) * 1000)
    return {name: statistics.median(found) for name, found in times.items()}


def module(model: Any) -> nn.Module:
    """Its way to its features as a module of its own, in torch."""
    net = copy.deepcopy(model.body.net)
    return Tensors(net, model.body.cut(net))


def onnx_file(model: Any) -> bytes:
    """The net as ONNX, exported anew."""
    body = model.body
    return compiled.exported(body.net, body.cut(body.net), body.size)


def bare(model: Any, x: Tensor) -> Way:
    """ONNX Runtime as it comes, but for threads that stop when it is done: the next one's turn is fair."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(onnx_file(model), options, providers=["CPUExecutionProvider"])
    return lambda x: tuple(map(torch.from_numpy, session.run(None, {"pictures": x.numpy()})))


def openvino(model: Any, x: Tensor) -> Way:
    """Its own latency settings, in 32 bits as everybody else."""
    import openvino

    core = openvino.Core()
    net = core.read_model(onnx_file(model))
    net.reshape(list(x.shape))
    ready = core.compile_model(net, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32",
                                            "INFERENCE_NUM_THREADS": THREADS})
    request = ready.create_infer_request()

    def see(x: Tensor) -> tuple[Tensor, ...]:
        found = request.infer([x.numpy()], share_inputs=True, share_outputs=True)
        return tuple(torch.from_numpy(found[i]) for i in range(len(found)))

    return see


def inductor(model: Any, x: Tensor) -> Way:
    """torch.compile, channels last."""
    return torch.compile(module(model).to(memory_format=torch.channels_last))


def torchscript(model: Any, x: Tensor) -> Way:
    """Traced, frozen, optimised for inference."""
    with torch.no_grad():
        traced = torch.jit.trace(module(model), (x,))
        return torch.jit.optimize_for_inference(torch.jit.freeze(traced))


RIVALS: dict[str, Callable[[Any, Tensor], Way]] = {
    "ONNX Runtime alone": bare, "OpenVINO": openvino, "frozen TorchScript": torchscript,
    "torch.compile": inductor}
