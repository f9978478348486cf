"""The asyncio twins of submitting, of waiting for a result and of a stream of pieces.

A module of its own, imported when it is first used: asyncio brings ssl, 7 MB that an engine in
threads has no use for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import islice
from typing import TypeVar

from edgeprefix.runtime.engine.in_order import of_row
from edgeprefix.runtime.engine.stream import Submit
from edgeprefix.runtime.errors import EdgePrefixError
from edgeprefix.runtime.work.completion import Piece
from edgeprefix.runtime.work.ticket import Ticket

T = TypeVar("T")


async def submitted(submit: Callable[[], Ticket[T]]) -> Ticket[T]:
    """A ticket; templates, tokens and files are dealt with on another thread than the event loop's.

    When the task is cancelled meanwhile, so is the request, as soon as there is one.
    """
    tickets: list[Ticket[T]] = []
    unwanted: list[bool] = []

    def prepare() -> Ticket[T]:
        tickets.append(submit())
        if unwanted:
            tickets[0].cancel()
        return tickets[0]

    try:
        return await asyncio.to_thread(prepare)
    except asyncio.CancelledError:
        unwanted.append(True)  # first this, then the look: one of the two threads sees the other
        for ticket in tickets:
            ticket.cancel()
        raise


async def result_of(submit: Callable[[], Ticket[T]]) -> T:
    """Submits and waits for the result; cancelling the task cancels the request."""
    loop, finished = asyncio.get_running_loop(), asyncio.Event()
    ticket = await submitted(submit)
    ticket.when_done(lambda _: _call_soon(loop, finished.set))
    try:
        await finished.wait()
        return ticket.result()
    finally:
        if not ticket.done:
            ticket.cancel()


async def results_of(
    submits: Iterable[Callable[[], Ticket[T]]], *, ahead: int, return_exceptions: bool
) -> list[T | Exception]:
    """The results in order, as `Submitter.submit_many` gives them; at most `ahead` are under way.
    Cancelling the task cancels all of them.
    """
    following, running = iter(submits), deque[asyncio.Task[T]]()
    results: list[T | Exception] = []

    def start(count: int) -> None:
        running.extend(asyncio.create_task(result_of(one)) for one in islice(following, count))

    try:
        start(ahead)
        while running:
            try:
                results.append(await running[0])
            except Exception as error:
                named = of_row(error, len(results))
                if not return_exceptions:
                    if isinstance(named, EdgePrefixError):
                        named.finished = tuple(results)
                    raise named from error
                results.append(named)
            running.popleft()
            start(1)
        return results
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def stream_pieces(submit: Submit) -> AsyncIterator[Piece]:
    """PieceStream for asyncio; closing the iterator cancels the request."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[Piece | None] = asyncio.Queue()

    def put(piece: Piece | None) -> None:
        _call_soon(loop, pieces.put_nowait, piece)

    ticket = await submitted(lambda: submit(put))
    ticket.when_done(lambda _: put(None))
    try:
        while (piece := await pieces.get()) is not None:
            yield piece
        ticket.result()  # raises what went wrong
    finally:
        if not ticket.done:
            ticket.cancel()


def _call_soon(
    loop: asyncio.AbstractEventLoop, call: Callable[..., object], *given: object
) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
        loop.call_soon_threadsafe(call, *given)
