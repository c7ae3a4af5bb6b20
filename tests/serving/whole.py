"""The whole application in its own process, with the toy models: `whole.py '{"pings": 0.04}' --port 4300`.

`pings` is what the times of signs of life are multiplied by. The method `toy_hold` keeps the interpreter to
itself for `seconds`, `toy_sleep` only takes long.
"""
from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from typing import Any

import numpy as np
import toy_room

import app
import models
from serving import wire

connected = wire.connected


def main() -> None:
    wanted = json.loads(sys.argv[1])
    setattr(models, "ROOMS", ("toy_room",))    # noqa: B010  (as monkeypatch does it elsewhere)
    setattr(models, "default", {"classify": "toy", "detect": "toy-boxes"}.get)  # noqa: B010
    toy_room.GATE.set()

    def hurried(*args: Any) -> Any:
        _methods()
        io = connected(*args)
        io.server.eio.ping_interval *= wanted.get("pings", 1)
        io.server.eio.ping_timeout *= wanted.get("pings", 1)
        return io

    setattr(wire, "connected", hurried)        # noqa: B010
    code = app.main(sys.argv[2:])
    sys.stdout.flush()
    os._exit(code)


def _methods() -> None:
    from explainers.base import Explanation, method

    def explained(look: Any) -> Explanation:
        return Explanation(np.ones(look.canvas.size, np.float32))

    @method("Holding", group="checks", shows="Nothing.", cannot="Be interrupted.", tasks=("classify",),
            seconds=(1.0, 0.0, 60.0))
    def toy_hold(look: Any, target: Any, seconds: float) -> Explanation:
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))    # PyDLL: with the interpreter's lock held
        return explained(look)

    @method("Sleeping", group="checks", shows="Nothing.", cannot="Be interrupted.", tasks=("classify",),
            seconds=(1.0, 0.0, 60.0))
    def toy_sleep(look: Any, target: Any, seconds: float) -> Explanation:
        time.sleep(seconds)
        return explained(look)


if __name__ == "__main__":
    main()
