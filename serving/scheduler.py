"""Who is served next. One thread owns the models; this file knows neither models nor sockets."""
from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from time import monotonic
from typing import Any

log = logging.getLogger("seewhy")

PATIENCE = 2.0                                 # an explanation among many live cameras waits no longer
UNHURRIED = 1.0                                # a live caption gives way to everyone else for so long
WAITING_REQUESTS = 32                          # explanations one client may have under way

Steps = Generator[Any, None, None]


@dataclass
class Frame:
    """One live picture: `run` answers it and may return a follow-up, or one of the others is called."""

    run: Callable[[], Callable[[], None] | None]
    replaced: Callable[[], None]
    failed: Callable[[Exception], None]
    closing: Callable[[], None]
    withdrawn: Callable[[], None] | None = None    # called when it may be given up for a new wish
    waiting: Future[Any] | None = None         # not before this is done (a model on its way)
    unhurried: bool = False
    since: float = field(default_factory=monotonic)


@dataclass
class Request:
    """A long piece of work, one step a turn. A step may yield a message, or a Future it waits for."""

    id: str
    steps: Steps
    deliver: Callable[[Any], None]
    failed: Callable[[Exception], None]
    waiting: Future[Any] | None = None
    stopped: bool = False
    since: float = field(default_factory=monotonic)


@dataclass
class Client:
    slot: Frame | None = None
    follow_up: Callable[[], None] | None = None
    requests: OrderedDict[str, Request] = field(default_factory=OrderedDict)


class Full(Exception):
    """A client has too many requests under way."""


class Scheduler:
    """Frames first, in turn over the clients, only the newest of each; requests in between, step by step."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, Client] = OrderedDict()
        self._wake = Condition()
        self._closed = False
        self._thread = Thread(target=self._serve, name="models", daemon=True)
        self._thread.start()

    def join(self, client: str) -> None:
        """From now on this client is served."""
        with self._wake:
            self._clients[client] = Client()

    def frame(self, client: str, frame: Frame) -> None:
        """Put a frame into the client's one slot; the one it replaces is told so."""
        old = None
        with self._wake:
            state = None if self._closed else self._clients.get(client)
            if state:
                old, state.slot = state.slot, frame
            self._wake.notify()
        if old:
            old.replaced()
        if state is None:
            frame.closing()
        elif frame.waiting:
            frame.waiting.add_done_callback(self._look_again)

    def withdraw(self, client: str) -> None:
        """Give up the client's waiting frame if it allows that."""
        with self._wake:
            state = self._clients.get(client)
            frame = state.slot if state else None
            if state and frame and frame.withdrawn:
                state.slot = None
        if frame and frame.withdrawn:
            frame.withdrawn()

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

    def stop(self, client: str, id: str | None = None) -> None:
        """Stop one request of a client, or all; what they were about to say is not said."""
        with self._wake:
            state = self._clients.get(client)
            for name in [id] if id is not None else list(state.requests) if state else []:
                if state:
                    self._stop(state, name)

    def leave(self, client: str) -> None:
        """Forget a client and all it waits for."""
        with self._wake:
            state = self._clients.pop(client, None)
            for name in list(state.requests) if state else []:
                self._stop(state, name)  # type: ignore[arg-type]

    def close(self, patience: float = 5.0) -> None:
        """Answer what waits, let the step that runs end, and end the thread."""
        with self._wake:
            self._closed = True
            waiting = [c.slot for c in self._clients.values() if c.slot]
            for state in self._clients.values():
                state.slot = state.follow_up = None
                for name in list(state.requests):
                    self._stop(state, name)
            self._wake.notify()
        for frame in waiting:
            frame.closing()
        self._thread.join(patience)

    def waiting(self) -> dict[str, int]:
        """How much is waiting, for tests and for the curious."""
        with self._wake:
            return {"clients": len(self._clients),
                    "frames": sum(c.slot is not None for c in self._clients.values()),
                    "requests": sum(len(c.requests) for c in self._clients.values())}

    @staticmethod
    def _stop(state: Client, id: str) -> None:
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
        """The next turn: an overdue request, frames, requests, and last the frames that are in no hurry."""
        now = monotonic()
        request = self._next_request()
        if request and now - request[1].since > PATIENCE:
            return self._step(*request)
        frame = self._next_frame(lambda f: not f.unhurried or now - f.since > UNHURRIED)
        if frame:
            return frame
        return self._step(*request) if request else self._next_frame(lambda f: True)

    def _next_frame(self, due: Callable[[Frame], bool]) -> Callable[[], None] | None:
        for name, client in self._clients.items():
            if client.follow_up:
                self._clients.move_to_end(name)
                turn, client.follow_up = client.follow_up, None
                return turn
            frame = client.slot
            if frame and due(frame) and (frame.waiting is None or frame.waiting.done()):
                self._clients.move_to_end(name)
                client.slot = None
                return lambda: self._run(name, frame)
        return None

    def _run(self, name: str, frame: Frame) -> None:
        try:
            follow_up = frame.run()
        except Exception as e:
            frame.failed(e)
            return
        with self._wake:
            if name in self._clients and not self._closed:
                self._clients[name].follow_up = follow_up

    def _next_request(self) -> tuple[Client, Request] | None:
        """The request whose last turn is longest ago, of those that wait for nothing."""
        able = [(c, r) for c in self._clients.values() for r in c.requests.values()
                if r.waiting is None or r.waiting.done()]
        return min(able, key=lambda pair: pair[1].since, default=None)

    def _step(self, client: Client, request: Request) -> Callable[[], None]:
        def turn() -> None:
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
                request.since = monotonic()
                if (ended or request.stopped) and client.requests.get(request.id) is request:
                    del client.requests[request.id]
            if ended or request.stopped:
                request.steps.close()

        return turn
