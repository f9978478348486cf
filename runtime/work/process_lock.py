"""A lock that knows its process.

In a forked child the threads of the parent are gone, and a lock that one of them held stays held
for ever: waiting for it would never end.
"""

from __future__ import annotations

import os
import threading

from edgeprefix.runtime.errors import EngineClosedError


class ProcessLock:
    """Reentrant. Raises EngineClosedError where it is taken in a process forked from its own."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        require_process(self._process)
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def require_process(process: int) -> None:
    """Raises EngineClosedError in another process than the one of this id."""
    if os.getpid() != process:
        raise EngineClosedError(
            "this engine was loaded before the process forked, and its thread stayed behind; "
            "load one in each process"
        )
