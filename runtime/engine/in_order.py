"""Results of many requests in their order, a bad one in its turn."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import TypeVar

from edgeprefix.runtime.errors import EdgePrefixError
from edgeprefix.runtime.work.ticket import Ticket

R = TypeVar("R")


def in_order(tickets: Iterable[Ticket[R]], *, ahead: int) -> Iterator[tuple[int, R | Exception]]:
    """(row, its result or its error, which names the row), in order; at most `ahead` tickets are
    taken beyond the next one. Those that are not waited for in the end are cancelled.
    """
    running: deque[Ticket[R]] = deque()
    rows = count()
    try:
        for ticket in tickets:
            running.append(ticket)
            while len(running) > ahead or (running and running[0].done):
                following = _next(rows, running)
                yield following
        while running:
            last = _next(rows, running)
            yield last
    finally:
        for ticket in running:
            ticket.cancel()


def started(submit: Callable[..., Ticket[R]], request: object) -> Ticket[R]:
    """The ticket of a request; one that is refused fails in its turn, after those before it."""
    try:
        return submit(request, wait=True)
    except Exception as error:
        ticket: Ticket[R] = Ticket()
        ticket.fail(error)
        return ticket


def _next(rows: Iterator[int], running: deque[Ticket[R]]) -> tuple[int, R | Exception]:
    row = next(rows)
    try:
        return row, running.popleft().wait()
    except Exception as error:
        return row, of_row(error, row)


def of_row(error: Exception, row: int) -> Exception:
    """The error, naming the row."""
    if isinstance(error, EdgePrefixError):
        named = copy.copy(error)  # several requests may have failed of one cause
        named.args, named.row, named.__cause__ = (f"row {row}: {error}",), row, error
        return named
    error.add_note(f"in row {row} of the batch")
    return error
