"""The engine that works in this process: one thread runs the models, others load them and fill holes."""
from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from functools import partial
from time import perf_counter
from typing import Any

from explainers import METHODS, lacks, offered
from models.base import BadInput, Model
from serving.brush import Brush
from serving.engine import Command, Figures, Hear, Message, See
from serving.scheduler import Frame, Request, Scheduler, Steps
from serving.settings import Settings
from serving.work import Work, told

CLOSING = {"code": "closing", "message": "the server is closing; connect again in a moment"}
NEWER = {"code": "newer", "message": "a newer picture came before this one's turn"}


class LocalEngine:
    """An Engine (engine.py) whose scheduler's thread runs work.run, step by step."""

    def __init__(self, settings: Settings):
        self.work = Work(settings)
        self._scheduler = Scheduler()
        self._brush = Brush()

    def join(self, client: str) -> None:
        self._scheduler.join(client)

    def leave(self, client: str) -> None:
        self._scheduler.leave(client)

    def stop(self, client: str, id: Hashable = None) -> None:
        self._scheduler.stop(client, id)

    def waiting(self) -> dict[str, int]:
        """How much is waiting, for tests and for the curious."""
        return self._scheduler.waiting()

    def close(self) -> None:
        self._scheduler.close()
        self._brush.close()

    def figures(self) -> Figures:
        here, coming, problems = self.work.shelf.states()
        failed = {name: str(problem) if isinstance(problem, BadInput) else
                  f"{name} could not be loaded ({type(problem).__name__}); the log says more"
                  for name, problem in problems.items()}
        waiting, cache = self._scheduler.waiting(), self.work.remembered
        return Figures(here, coming, failed, waiting["frames"], self._scheduler.oldest(),
                       waiting["requests"], cache.bytes, cache.hits, cache.misses)

    def describe(self, model: str) -> dict[str, Any] | None:
        found = self.work.shelf.here(model)
        return None if found is None else described(found)

    def progress(self, client: str, model: str, hear: Hear) -> None:
        def arrived(future: Future[Model]) -> None:
            problem = future.exception()
            if problem:
                hear("error", told(problem))
            else:
                hear("here", described(future.result()))

        self.work.shelf.watch(model, partial(hear, "progress"), arrived)

    def submit(self, client: str, id: Hashable, command: Command, hear: Hear) -> None:
        if isinstance(command, See):
            self._see(client, id, command, hear)
        else:
            answered = False                   # so that nothing comes after its last message

            def deliver(message: Message) -> None:
                nonlocal answered
                event, fields = message
                answered = event != "explanation" or bool(fields.get("done"))
                hear(event, fields)

            self._scheduler.request(client, Request(
                id, self._prepared(client, command), deliver, lambda problem: hear("error", told(problem)),
                lambda: None if answered else hear("error", CLOSING)))

    def _see(self, client: str, id: Hashable, command: See, hear: Hear) -> None:
        """Look at a frame as soon as it is its turn, then explain it in another turn."""
        here, came = self.work.shelf.ask(command.wish.model, again=False), perf_counter()

        def run() -> Callable[[], None] | None:
            here.result()
            start = perf_counter()
            steps = self.work.run(command)
            event, fields = next(steps)
            if event == "result":
                fields["ms"]["wait"] = round((start - came) * 1000, 2)
            hear(event, fields)
            rest = partial(_say, steps, hear)
            if fields.get("follows"):
                return rest
            rest()
            return None

        self._scheduler.frame(client, Frame(
            run=run, id=id, replaced=partial(hear, "dropped", NEWER),
            closing=partial(hear, "dropped", CLOSING),
            failed=lambda problem: hear("error", told(problem)), waiting=None if here.done() else here,
            unhurried=command.wish.task == "caption" and not command.keep))

    def _prepared(self, client: str, command: Command) -> Steps:
        """The command's messages, once what takes long has been done in threads that keep nobody waiting."""
        here = self.work.shelf.ask(command.wish.model)
        erased = None if isinstance(command, See) else command.edits
        if erased and not self.work.is_filled(command.picture, erased):
            filling = self._brush.submit(client, self.work.filling(command.picture, erased))
            try:
                yield filling
            finally:
                filling.cancel()
            filling.result()
        if not here.done():
            yield here
        here.result()
        yield from self.work.run(command)


def described(model: Model) -> dict[str, Any]:
    """What a page needs to know of a model that is here."""
    lacking = {name: lacks(method, model) for name, method in METHODS.items()
               if model.info.task in method.tasks}
    return {"labels": model.labels, "offers": sorted(offered(model)),
            "lacking": {name: reason for name, reason in lacking.items() if reason}}


def _say(steps: Iterator[Message], hear: Hear) -> None:
    for message in steps:
        hear(*message)
