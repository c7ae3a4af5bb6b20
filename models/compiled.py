"""Seeing in a hurry: without a gradient in ONNX Runtime, with one in torch and without batch norms.

The body of a net, from pixels in [0,1] to features, is exported from the very weights that torch holds, and
kept in the cache folder for the next start. Whatever lies there, it is compared with torch before it is used.
"""
from __future__ import annotations

import hashlib
import io
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from models import nets, store
from models.base import THREADS, Features, Model

log = logging.getLogger("seewhy")

EXPORT = 1                  # counts on when another graph is made of the same weights
CLOSE = 1e-4                # how far a map may be from torch's, as a share of its largest number
# Threads wait awake for ten microseconds, and never after a run. Asleep at once, Lite0 takes a tenth longer
# here; awake for as long as usual it takes a third longer beside one busy process; and where they stay awake
# after a run, what torch does next takes two to four times as long.
WAITING = {"intra_op.allow_spinning": "1", "intra_op.spin_duration_us": "10", "force_spinning_stop": "1"}
UNUSED = 90 * 86400         # seconds after which a kept export is thrown away: each new torch makes others
ONNX_RUNTIME, NOT_YET = "ONNX Runtime", "torch: not compiled"

Seeing = Callable[[Tensor], Features]
Made = TypeVar("Made")
_in_torch: ContextVar[bool] = ContextVar("in_torch", default=False)
one_by_one = Lock()         # torch's exporter keeps what it knows of the net in its module


class Body:
    """A net's way from pixels (Nx3xhxw in [0,1], normalising included) to features.

    `cut` makes that way of the net, or of a copy of it. Pictures are squares of `size`; of a net with a
    `stride` their sides are any of its multiples. The net itself is run until compile() is called, and later
    wherever the faster ways cannot follow: where hooks hang on it or its weights are to have gradients.
    `state` says in words what sees where no gradient is wanted. The weights must stay as they are. It may be
    called from many threads at once.
    """

    def __init__(self, net: nn.Module, cut: Callable[[Any], Seeing], size: int, stride: int = 0):
        self.state = NOT_YET
        self.bytes = 0                         # of weights that are held a second time
        self.net, self.cut, self.size, self.stride = net, cut, size, stride
        self._plain = cut(net)
        self._folded: Seeing | None = None
        self._session: Seeing | None = None
        self._weights = [*net.parameters()]
        self._forward = forward_hooks(net)
        self._backward = [held for m in net.modules() for held in (m._backward_hooks, m._backward_pre_hooks)]

    def __call__(self, x: Tensor) -> Features:
        if self.state == NOT_YET or _in_torch.get() or any(self._forward):
            return self._plain(x)
        if self._session and self._takes(x):
            return self._session(x)
        if self._folded and not any(self._backward) and not any(w.requires_grad for w in self._weights):
            return self._folded(x)
        return self._plain(x)

    def _takes(self, x: Tensor) -> bool:
        height, width = x.shape[-2:]
        fits = (height % self.stride == width % self.stride == 0 if self.stride else
                height == width == self.size)
        return fits and x.shape[1] == 3 and runs(x)

    def compile(self) -> None:
        with one_by_one:
            if self.state != NOT_YET:
                return
            self._session, state = attempted(self._made, type(self.net).__name__)
            try:
                self._folded = self._without_norms()
            except Exception as problem:
                log.info("%s keeps its batch norms: %s", type(self.net).__name__, reason(problem))
            self.state = state

    def _without_norms(self) -> Seeing | None:
        """The same way through a copy whose batch norms are part of the convolutions before them."""
        twin = nets.folded(self.net)
        if twin is None:
            return None
        see, x = self.cut(twin), example(self.size)[:1].to(self._weights[0].device)
        with torch.no_grad():
            close(see(x), self._plain(x))
        shared = {weight.data_ptr() for weight in self._weights}
        self.bytes += sum(w.nbytes for w in twin.parameters() if w.data_ptr() not in shared)
        return see

    def _made(self) -> Seeing:
        not_beside_cpu(self._weights)
        made_for = (self.size, self.stride) if self.stride else (self.size,)
        return brought(key(self.net, *made_for),
                       lambda: exported(self.net, self._plain, self.size, bool(self.stride)), self._checked)

    def _checked(self, made: bytes) -> Seeing:
        """The file's bytes as a function, seen to do what torch does with two pictures, one, oblong ones."""
        ready, x = opened(made), example(self.size)
        with torch.no_grad():
            told = self._plain(x)
        maps = len(told.maps)

        def see(x: Tensor) -> Features:
            found = [torch.from_numpy(array) for array in ready.run(None, {"pictures": x.numpy()})]
            return Features(tuple(found[:maps]), tuple(found[maps:]))

        close(see(x), told)
        close(see(x[:1]), told.each(lambda t: t[:1]))
        for other in oblong(x[:1], self.stride):
            with torch.no_grad():
                close(see(other), self._plain(other))
        self.bytes += len(made)
        return see


class Tensors(nn.Module):
    """A net's way to its features as a module of its own: its weights have their names, tensors come out."""

    def __init__(self, net: nn.Module, see: Seeing):
        super().__init__()
        self.net, self.see = net, see
        self.eval()                            # else the exporter, when it is done, sets all to training

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.see(x).tensors


class NotHere(RuntimeError):
    """There is nothing to compile for; nobody needs to be warned."""


class Part(Protocol):
    """What can be made faster: what runs it in words, and how many bytes that holds besides its weights."""

    state: str
    bytes: int

    def compile(self) -> None:
        """From now on as fast as can be; never raises, since what there is does the same, more slowly."""


@runtime_checkable
class Compiles(Protocol):
    """A model with such parts."""

    parts: tuple[Part, ...]


def compile_model(model: Model) -> None:
    """Make a model see faster, if it is one that can; the first time takes seconds, later ones a moment."""
    for part in parts_of(model):
        part.compile()


def parts_of(model: Model) -> tuple[Part, ...]:
    return model.parts if isinstance(model, Compiles) else ()


def state_of(model: Model) -> str:
    """What runs a model where no gradient is wanted, in words: of its parts the one that is worst off."""
    states = [part.state for part in parts_of(model)]
    return next((state for state in states if state != ONNX_RUNTIME), ONNX_RUNTIME if states else "")


@contextmanager
def in_torch() -> Iterator[None]:
    """Inside, this thread sees in torch alone: for hooks, which ONNX Runtime does not know."""
    token = _in_torch.set(True)
    try:
        yield
    finally:
        _in_torch.reset(token)


def attempted(make: Callable[[], Made], name: str) -> tuple[Made | None, str]:
    """What could be made, if it could, and what runs from now on in words."""
    try:
        return make(), ONNX_RUNTIME
    except NotHere as problem:
        return None, f"torch: {problem}"
    except Exception as problem:               # exporters and ONNX Runtime have no base class for errors
        log.warning("%s is not compiled and stays slower: %s", name, problem)
        return None, f"torch: {reason(problem)}"


def not_beside_cpu(weights: Iterable[Tensor]) -> None:
    """ONNX Runtime is for processors: what lies elsewhere stays with torch."""
    for weight in weights:
        if weight.device.type != "cpu":
            raise NotHere(f"it runs on {weight.device.type}")


def key(net: nn.Module, *more: object) -> str:
    """A hash of a net's weights and of what makes a graph of them."""
    makers = EXPORT, torch.__version__, _onnxruntime().__version__, type(net).__name__, *more
    held = hashlib.sha256(repr(makers).encode())
    for name, tensor in net.state_dict().items():
        held.update(f"{name} {tuple(tensor.shape)}".encode())
        held.update(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data)
    return held.hexdigest()[:32]


def brought(name: str, make: Callable[[], bytes], check: Callable[[bytes], Made]) -> Made:
    """What check() makes of the export that is kept under a name, or of a fresh one, which is then kept."""
    file = store.cache_folder() / "compiled" / f"{name}.onnx"
    kept = _read(file)
    if kept is not None:
        try:
            return check(kept)
        except Exception as problem:
            log.warning("what is kept in %s is spoilt and is made anew: %s", file, reason(problem))
    fresh = make()
    checked = check(fresh)
    _keep(file, fresh)
    return checked


def exported(net: nn.Module, see: Seeing, size: int, any_shape: bool = False) -> bytes:
    """A net's way from `pictures` to its features as an ONNX file's bytes, for any number of pictures.

    Where they may have any height and width, so have its features, which are maps then. That costs no time:
    a file for each shape was not faster, nor was a session that is told the shape.
    """
    x = example(size)[:1]
    with torch.no_grad():
        names = ["pictures", *(f"features {i}" for i in range(len(see(x).tensors)))]
    axes = {name: {0: "n", **({2: f"{name} down", 3: f"{name} across"} if any_shape else {})}
            for name in names}
    return file_of(Tensors(net, see), {"pictures": x}, names[1:], axes)


def file_of(net: nn.Module, inputs: dict[str, Tensor], outputs: list[str],
            axes: dict[str, dict[int, str]]) -> bytes:
    """A module as an ONNX file's bytes, with these axes of any length."""
    out: Any = io.BytesIO()
    with torch.no_grad(), exporting():
        # The newer exporter needs the package onnxscript besides.
        torch.onnx.export(net, tuple(inputs.values()), out, dynamo=False, input_names=list(inputs),
                          output_names=outputs, dynamic_axes=axes)
    return out.getvalue()


def opened(made: bytes | str, threads: int = THREADS) -> Any:
    """An ONNX file, its bytes or its name, ready to run on the processor."""
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4             # what goes wrong is raised, too
    for setting, value in WAITING.items():
        options.add_session_config_entry(f"session.{setting}", value)
    return runtime.InferenceSession(made, options, providers=["CPUExecutionProvider"])


def reason(problem: Exception) -> str:
    """The end of what ONNX Runtime says, which begins with codes and paths; of others the first line."""
    said = str(problem).strip().splitlines() or [type(problem).__name__]
    return said[0].rpartition("failed:")[2].rpartition(" : ")[2].strip().rstrip(".")


def close(found: Features, expected: Features) -> None:
    """Nothing, or an error that says how far they are apart."""
    for ours, theirs in zip(found.tensors, expected.tensors, strict=True):
        off = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-12))
        if ours.shape != theirs.shape or not off <= CLOSE:       # said so, a NaN is not close
            raise ValueError(f"it differs from torch by {off:.2g} of the largest number")


def example(size: int) -> Tensor:
    """2x3xhxw, the same every time: shapes as in a photograph, and noise."""
    draw = torch.Generator().manual_seed(0)
    coarse, fine = (torch.rand(2, 3, n, n, generator=draw) for n in (9, size))
    return 0.7 * nn.functional.interpolate(coarse, (size, size), mode="bilinear") + 0.3 * fine


def oblong(x: Tensor, stride: int) -> list[Tensor]:
    """Of a square picture a wide and a tall piece, small so that it takes no time; none without a stride."""
    if not stride:
        return []
    long, short = (max(1, round(x.shape[-1] * share / stride)) * stride for share in (0.5, 0.3))
    return [x[:, :, :short, :long], x[:, :, :long, :short]]


def forward_hooks(net: nn.Module) -> list[Any]:
    """The very dictionaries that hooks are put into: looking through them must not cost a part of a frame."""
    return [held for m in net.modules() for held in (m._forward_hooks, m._forward_pre_hooks)]


def runs(x: Tensor) -> bool:
    """Whether ONNX Runtime may have it: nobody wants a gradient or torch, and it is what was exported."""
    return not (_in_torch.get() or torch.is_grad_enabled() or x.requires_grad or x.is_cuda
                or x.dtype != torch.float32)


def _onnxruntime() -> Any:
    # Else it keeps a diary of sessions in the home folder and sends it to its makers, on Linux since 1.29.
    # Its disable_telemetry_events() comes too late: what there is by then is sent all the same.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime  # needed only by what is compiled or is an ONNX file

    return onnxruntime


@contextmanager
def exporting() -> Iterator[None]:
    """Torch's exporter as it must be asked: not on stdout, and without attention's fast path."""
    warnings.filterwarnings("ignore", module=r"torch\.onnx")
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*legacy TorchScript-based ONNX")
    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
    torch._C._jit_set_onnx_log_output_stream("stderr")       # what it cannot do, it prints line by line
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _read(file: Path) -> bytes | None:
    try:
        made = file.read_bytes()
    except OSError:
        return None
    with suppress(OSError):
        os.utime(file)                         # it is still used
    return made


def _keep(file: Path, made: bytes) -> None:
    """Write it beside what is there, then give it its name: nobody ever reads a part of it."""
    part = file.with_name(f"{file.stem}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(made)
        os.replace(part, file)
        for other in file.parent.iterdir():
            if time.time() - other.stat().st_mtime > UNUSED:
                other.unlink(missing_ok=True)
    except OSError as problem:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        _not_kept(file.parent, problem.strerror or str(problem))


@cache
def _not_kept(folder: Path, why: str) -> None:
    """Said once, not for every model."""
    log.warning("nothing can be kept in %s (%s): models are compiled anew at every start; "
                "make room there, or name another folder in SEEWHY_CACHE", folder, why)
