"""What a caller holds while the engine works: wait for the result, or cancel."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from edgeprefix.runtime.errors import (
    EdgePrefixError,
    RequestCancelled,
    RequestError,
    RequestTimeout,
)

T = TypeVar("T")


class Ticket(Generic[T]):
    """A result to come. Safe to use from any thread. Raises RequestError for a timeout that is no
    time.
    """

    def __init__(self, *, timeout_s: float | None = None) -> None:
        if timeout_s is not None and not _is_time(timeout_s):
            raise RequestError(f"timeout_s={timeout_s!r}: expected seconds, 0 or more, or None")
        self.submitted = time.perf_counter()
        self.deadline = None if timeout_s is None else self.submitted + timeout_s
        self._timeout_s = timeout_s
        self._future: Future[T] = Future()
        # Only `cancel` below reaches the engine; Future.cancel would not
        self._future.set_running_or_notify_cancel()
        self._cancelled = False
        self._wake: Callable[[], None] | None = None

    def cancel(self) -> None:
        """Asks the engine to stop; it does so between two steps, and `result` raises
        RequestCancelled.
        """
        self._cancelled = True
        wake = self._wake
        if wake is not None:
            wake()

    def result(self, timeout_s: float | None = None) -> T:
        """Waits and returns the result, or raises what went wrong (RequestCancelled,
        RequestTimeout, …).

        `timeout_s` bounds this wait only (TimeoutError); the request goes on.
        """
        return self._future.result(timeout_s)

    def wait(self) -> T:
        """The result; Ctrl-C (or any other exception) while waiting cancels the request."""
        try:
            return self._future.result()
        except BaseException:
            self.cancel()
            raise

    @property
    def done(self) -> bool:
        """Whether there is a result or an error."""
        return self._future.done()

    @property
    def future(self) -> Future[T]:
        """For `asyncio.wrap_future` and callbacks. Its own `cancel` does nothing: use the
        ticket's.
        """
        return self._future

    def overdue(self, now: float) -> EdgePrefixError | None:
        """Why the engine should give this request up at the time `now`, None to go on."""
        if self._cancelled:
            return RequestCancelled("the request was cancelled")
        if self.deadline is not None and now >= self.deadline:
            return RequestTimeout(
                f"the request did not finish within {self._timeout_s:g} s; give it more time or "
                "fewer tokens"
            )
        return None

    def attach(self, wake: Callable[[], None]) -> None:
        """Lets `cancel` wake the engine."""
        self._wake = wake

    def resolve(self, value: T) -> None:
        """Delivers the result. The engine's side."""
        self._wake = None  # who keeps a ticket does not keep the engine's memory
        if not self._future.done():
            self._future.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Delivers an error. The engine's side."""
        self._wake = None
        if not self._future.done():
            self._future.set_exception(error)


def _is_time(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and not math.isnan(value)
        and value >= 0
    )
