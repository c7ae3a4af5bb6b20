"""How gunicorn serves the page: one process, since all that is known of clients lives in it; many threads.

gunicorn reads this file by itself when it is started in this folder; its command line goes first.
"""
from __future__ import annotations

import os
import signal
from threading import Thread
from typing import Any

bind = "127.0.0.1:4200"
worker_class = "gthread"
workers = 1                                    # a second one would know nothing of the first one's pages
threads = 100                                  # each open page holds one, and each request for a moment
timeout = 120                                  # seconds that the libraries may hold up everything else
graceful_timeout = 4
# Requests are not logged: what is looked at is private, and /enter has the token in its address.
accesslog = None


def post_worker_init(worker: Any) -> None:
    """Pages are told that the server closes as soon as it is asked to, not when they have gone."""
    ending = signal.getsignal(signal.SIGTERM)

    def end(number: int, frame: Any) -> None:
        Thread(target=_say_goodbye, args=(worker,), name="closing").start()
        if callable(ending):
            ending(number, frame)

    signal.signal(signal.SIGTERM, end)
    signal.siginterrupt(signal.SIGTERM, False)


def worker_int(worker: Any) -> None:
    """Ctrl+C: gunicorn ends the process right after this."""
    _say_goodbye(worker)


def worker_exit(server: Any, worker: Any) -> None:
    """Whatever still loads or looks in its thread would keep the process, or abort it."""
    if worker.booted and worker.pid == os.getpid():      # else gunicorn says by its code what went wrong
        os._exit(0)


def _say_goodbye(worker: Any) -> None:
    live = getattr(worker.wsgi, "extensions", {}).get("live")
    if live:
        live.close()
