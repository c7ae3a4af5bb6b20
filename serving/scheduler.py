"""Who is served next. One thread owns the models; this file knows neither models nor sockets.

The policy is next_turn, a function of plain data. What it promises, whatever is asked for: while anybody's
frame waits, every second turn at least is a frame's; a frame waits for one turn of each other client's frames
and one step of a request; a request waits PATIENCE, then for the clients before it, each with one step and
one turn of every waiting frame. Turns go round over clients, however many requests one of them has.
"""
from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from time import monotonic
from typing import Any

from serving.engine import Full

log = logging.getLogger("seewhy")

PATIENCE = 0.1                                 # seconds that a step of an explanation lets frames go first
UNHURRIED = 1.0                                # a live caption gives way to other frames for so long
CLOSING = 3.5                                  # seconds that closing waits for the step that runs
WAITING_REQUESTS = 32                          # explanations one client may have under way

Steps = Generator[Any, None, None]


@dataclass(frozen=True)
class Line:
    """What a client waits for: since when a frame of its own, since when any of its requests, could go."""

    client: str
    frame: float | None = None
    unhurried: bool = False                    # a frame that gives way to others
    request: float | None = None


@dataclass(frozen=True)
class State:
    """All that the next turn depends on."""

    lines: tuple[Line, ...]
    served: frozenset[str] = frozenset()       # whose frames had a turn since the last step of a request


@dataclass(frozen=True)
class Turn:
    """Whose turn it is, and which of its two kinds of work."""

    client: str
    is_frame: bool


def next_turn(state: State, now: float) -> Turn | None:
    """Frames first, the longest waiting first; an overdue request once every waiting frame had its turn."""
    frames = sorted((line.frame, line.client, line.unhurried) for line in state.lines
                    if line.frame is not None)
    requests = sorted((line.request, line.client) for line in state.lines if line.request is not None)
    hurried = [client for since, client, unhurried in frames if not unhurried or now - since > UNHURRIED]
    fresh = [client for client in hurried if client not in state.served]
    if hurried and (fresh or not requests or now - requests[0][0] <= PATIENCE):
        return Turn((fresh or hurried)[0], True)
    if requests and (hurried or not frames or state.served):
        return Turn(requests[0][1], False)
    return Turn(frames[0][1], True) if frames else None


@dataclass
class Frame:
    """One live picture: `run` answers it and may return a follow-up, or one of the others is called."""

    run: Callable[[], Callable[[], None] | None]
    replaced: Callable[[], None]
    failed: Callable[[Exception], None]
    closing: Callable[[], None]
    id: Hashable = None
    waiting: Future[Any] | None = None         # not before this is done (a model on its way)
    unhurried: bool = False


@dataclass
class Request:
    """A long piece of work, one step a turn. A step may yield a message, or a Future it waits for."""

    id: Hashable
    steps: Steps
    deliver: Callable[[Any], None]
    failed: Callable[[Exception], None]
    closing: Callable[[], None] = lambda: None
    waiting: Future[Any] | None = None
    stopped: bool = False
    since: float = field(default_factory=monotonic)

    @property
    def able(self) -> bool:
        return self.waiting is None or self.waiting.done()


@dataclass
class Client:
    """The one place for a frame, since when it is taken, and the requests under way."""

    slot: Frame | None = None
    follow_up: Callable[[], None] | None = None
    since: float = 0.0
    stepped: float = 0.0                       # when one of its requests had the last turn
    requests: OrderedDict[Hashable, Request] = field(default_factory=OrderedDict)

    def line(self, name: str) -> Line:
        frame = self.follow_up or (self.slot and (self.slot.waiting is None or self.slot.waiting.done()))
        request = self.next_request()
        return Line(name, self.since if frame else None,
                    bool(self.slot and self.slot.unhurried and not self.follow_up),
                    None if request is None else max(self.stepped, min(
                        r.since for r in self.requests.values() if r.able)))

    def next_request(self) -> Request | None:
        """The one whose last turn is longest ago, of those that wait for nothing."""
        return min((r for r in self.requests.values() if r.able), key=lambda r: r.since, default=None)


class Scheduler:
    """Keeps what waits, asks next_turn, and runs the turn on its own thread."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, Client] = OrderedDict()
        self._served: set[str] = set()
        self._wake = Condition()
        self._closed = False
        self._running: Request | None = None   # whose step has its turn at this moment
        self._thread = Thread(target=self._serve, name="models", daemon=True)
        self._thread.start()

    def join(self, client: str) -> None:
        """From now on this client is served."""
        with self._wake:
            self._clients[client] = Client()

    def frame(self, client: str, frame: Frame) -> None:
        """Put a frame into the client's one slot; the one it replaces is told so, and its place is kept."""
        old = None
        with self._wake:
            state = None if self._closed else self._clients.get(client)
            if state:
                old, state.slot = state.slot, frame
                if old is None and state.follow_up is None:
                    state.since = monotonic()
            self._wake.notify()
        if old:
            old.replaced()
        if state is None:
            frame.closing()
        elif frame.waiting:
            frame.waiting.add_done_callback(self._look_again)

    def request(self, client: str, request: Request) -> None:
        """Add a long piece of work; one of the same id is stopped first."""
        with self._wake:
            state = self._clients.get(client)
            if state is None or self._closed:
                return
            if request.id not in state.requests and len(state.requests) >= WAITING_REQUESTS:
                raise Full
            self._stop(state, request.id)
            state.requests[request.id] = request
            self._wake.notify()

    def stop(self, client: str, id: Hashable = None) -> None:
        """Stop one request of a client, or all; or, by its id, a frame that waits. They say nothing more."""
        with self._wake:
            state = self._clients.get(client)
            if state is None:
                return
            if id is not None and state.slot and state.slot.id == id:
                state.slot = None
            for name in [id] if id is not None else list(state.requests):
                self._stop(state, name)

    def leave(self, client: str) -> None:
        """Forget a client and all it waits for."""
        with self._wake:
            state = self._clients.pop(client, Client())
            self._served.discard(client)
            for name in list(state.requests):
                self._stop(state, name)

    def close(self, patience: float = CLOSING) -> None:
        """Answer what waits, let the step that runs end, and end the thread."""
        with self._wake:
            self._closed = True
            waiting: list[Frame | Request] = [c.slot for c in self._clients.values() if c.slot]
            for state in self._clients.values():
                state.slot = state.follow_up = None
                for name, request in list(state.requests.items()):
                    if request is not self._running:     # that one says what it has, and then that it ends
                        waiting.append(request)
                        self._stop(state, name)
            self._wake.notify()
        for other in waiting:
            other.closing()
        self._thread.join(patience)

    def waiting(self) -> dict[str, int]:
        """How much is waiting, for tests and for the curious."""
        with self._wake:
            return {"clients": len(self._clients),
                    "frames": sum(c.slot is not None for c in self._clients.values()),
                    "requests": sum(len(c.requests) for c in self._clients.values())}

    def oldest(self) -> float:
        """For how many seconds a frame waits that could go, and has waited longest."""
        with self._wake:
            waits = [line.frame for name, client in self._clients.items()
                     if (line := client.line(name)).frame is not None]
        return monotonic() - min(waits) if waits else 0.0

    @staticmethod
    def _stop(state: Client, id: Hashable) -> None:
        request = state.requests.pop(id, None)
        if request:
            request.stopped = True             # its generator ends with its last reference, between two steps

    def _look_again(self, _: Future[Any]) -> None:
        with self._wake:
            self._wake.notify()

    def _serve(self) -> None:
        while True:
            with self._wake:
                work = None
                while not self._closed and (work := self._next()) is None:
                    self._wake.wait()
            if work is None:
                return
            try:
                work()
            except Exception:                  # whatever happens, the thread lives on
                log.exception("a turn failed")
            del work                           # else a picture of a client that left would live on here

    def _next(self) -> Callable[[], None] | None:
        """The work of the next turn, taken out of the line."""
        lines = tuple(client.line(name) for name, client in self._clients.items())
        turn = next_turn(State(lines, frozenset(self._served)), monotonic())
        if turn is None:
            return None
        client = self._clients[turn.client]
        if not turn.is_frame:
            self._served.clear()
            client.stepped = monotonic()
            self._running = request = client.next_request()
            assert request is not None
            return lambda: self._step(client, request)
        self._served.add(turn.client)
        if client.follow_up:
            follow_up, client.follow_up = client.follow_up, None
            client.since = monotonic()         # a frame that came meanwhile goes behind the others'
            return follow_up
        frame, client.slot = client.slot, None
        assert frame is not None
        return lambda: self._run(turn.client, frame)

    def _run(self, name: str, frame: Frame) -> None:
        try:
            follow_up = frame.run()
        except Exception as e:
            frame.failed(e)
            return
        with self._wake:
            client = self._clients.get(name)
            if client and follow_up and not self._closed:
                client.follow_up, client.since = follow_up, monotonic()

    def _step(self, client: Client, request: Request) -> None:
        ended = True
        try:
            message = next(request.steps)
            ended = False
            if isinstance(message, Future):
                request.waiting = message
                message.add_done_callback(self._look_again)
            elif message is not None and not request.stopped:
                request.deliver(message)
        except StopIteration:
            pass
        except Exception as e:
            ended = True
            if not request.stopped:
                request.failed(e)
        with self._wake:
            self._running = None
            cut_short = self._closed and not ended and not request.stopped
            request.since = client.stepped = monotonic()
            if (ended or request.stopped) and client.requests.get(request.id) is request:
                del client.requests[request.id]
        if cut_short:
            request.closing()
        if ended or request.stopped or cut_short:
            request.steps.close()
