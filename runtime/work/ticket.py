"""What a caller holds while the engine works: wait for the result, or cancel."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from edgeprefix.runtime.errors import (
    EngineClosedError,
    RequestCancelled,
    RequestError,
    RequestInterrupted,
    RequestTimeout,
)
from edgeprefix.runtime.work.callbacks import Callbacks

T = TypeVar("T")


class Ticket(Generic[T]):
    """A result to come, safe to use from any thread. Raises RequestError for a wrong timeout."""

    def __init__(
        self, *, timeout_s: float | None = None, callbacks: Callbacks | None = None
    ) -> None:
        if timeout_s is not None and not _is_time(timeout_s):
            raise RequestError(f"timeout_s={timeout_s!r}: expected seconds, 0 or more, or None")
        self.submitted = time.perf_counter()
        self.deadline = None if timeout_s is None else self.submitted + timeout_s
        self._timeout_s, self._callbacks = timeout_s, callbacks
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._settled: Future[T] = Future()
        self._future: Future[T] | None = None  # the callers' own view of it, when they ask for one
        self._cancelled, self._over = False, False
        self._wake: Callable[[], None] | None = None
        self._engine_thread: int | None = None

    def cancel(self) -> None:
        """Asks the engine to stop between two steps; `result` raises RequestCancelled."""
        self._cancelled = True
        wake = self._wake
        if wake is not None and os.getpid() == self._process:  # a fork may hold the engine's lock
            wake()

    def result(self, timeout_s: float | None = None) -> T:
        """Waits and returns the result, or raises what went wrong (RequestCancelled,
        RequestTimeout, …).

        `timeout_s` bounds this wait only (TimeoutError); the request goes on. Raises RequestError
        on the engine's own thread, which would wait for itself, and EngineClosedError in a forked
        process, where nothing would ever come.
        """
        self.require_coming()
        return self._settled.result(timeout_s)

    def wait(self) -> T:
        """The result; Ctrl-C (or any other exception) while waiting cancels the request."""
        try:
            return self.result()
        except BaseException:
            self.cancel()
            raise

    @property
    def done(self) -> bool:
        """Whether there is a result or an error."""
        if os.getpid() != self._process:  # where another thread of the parent may hold its lock
            return self._over
        return self._settled.done()

    @property
    def future(self) -> Future[T]:
        """For `asyncio.wrap_future` and callbacks, which run on a thread of their own. Its own
        `cancel` does nothing: use the ticket's.
        """
        self._require_process()
        with self._lock:
            future, known = self._future or Future(), self._future is not None
            self._future = future
        if not known:
            future.set_running_or_notify_cancel()
            self.when_done(lambda done: self._settle(future, done))
        return future

    def when_done(self, call: Callable[[Future[T]], object]) -> None:
        """Calls it at the end, on the engine's thread: for code that neither waits nor fails."""
        self._settled.add_done_callback(call)

    def require_coming(self) -> None:
        """Raises RequestError or EngineClosedError where waiting would never end."""
        self._require_process()
        if threading.get_ident() == self._engine_thread and not self.done:
            raise RequestError(
                "the engine's own thread cannot wait for the engine: use submit() here, and wait "
                "for the ticket elsewhere"
            )

    def _require_process(self) -> None:
        if os.getpid() != self._process and self._wake is not None:
            raise EngineClosedError(
                "this request was submitted before the process forked, and its engine stayed "
                "behind; load one in each process"
            )

    def _settle(self, future: Future[T], done: Future[T]) -> None:
        """Lets the callers' future follow, whose callbacks do not run on the engine's thread."""
        error = done.exception()

        def settle() -> None:
            future.set_result(done.result()) if error is None else future.set_exception(error)

        if self._callbacks is None or threading.get_ident() != self._engine_thread:
            settle()
        else:
            self._callbacks.run(settle)

    def overdue(self, now: float) -> RequestInterrupted | None:
        """Why the engine should give this request up at the time `now`, None to go on."""
        if self._cancelled:
            return RequestCancelled("the request was cancelled")
        if self.deadline is not None and now >= self.deadline:
            return RequestTimeout(
                f"the request did not finish within {self._timeout_s:g} s; give it more time or "
                "fewer tokens"
            )
        return None

    def attach(self, wake: Callable[[], None], engine_thread: int | None) -> None:
        """Lets `cancel` wake the engine, and tells its thread from others."""
        self._wake, self._engine_thread = wake, engine_thread

    def resolve(self, value: T) -> None:
        """Delivers the result. The engine's side."""
        if not self._over:
            self._over = True
            self._settled.set_result(value)
        self._wake = None  # who keeps a ticket does not keep the engine's memory

    def fail(self, error: BaseException) -> None:
        """Delivers an error. The engine's side."""
        if not self._over:
            self._over = True
            self._settled.set_exception(error)
        self._wake = None


def _is_time(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and not math.isnan(value)
        and value >= 0
    )
