"""Callers' own code, on a thread of its own: the engine's thread never runs it, so that no callback
can stop or block what others wait for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

logger = logging.getLogger(__name__)

Call = Callable[[], object]


class Callbacks:
    """Runs calls one after the other, in order; its thread starts with the first one."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = False

    def run(self, call: Call) -> None:
        """Puts a call into the line and returns at once."""
        with self._lock:
            if not self._started:
                self._started = True
                threading.Thread(
                    target=_run, args=(self._calls,), name="edgeprefix-callbacks", daemon=True
                ).start()
        self._calls.put(call)

    def close(self) -> None:
        """Ends the thread behind the calls that wait; does not wait for it."""
        self._calls.put(None)


def _run(calls: SimpleQueue[Call | None]) -> None:
    while (call := calls.get()) is not None:
        try:
            call()
        except BaseException:  # SystemExit too: those behind it have their own right to be called
            logger.exception("a callback failed")
        del call  # what it holds is not kept until the next one comes
