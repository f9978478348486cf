"""The asyncio twins of waiting for a result and of a stream of pieces.

A module of its own, imported when it is first used: asyncio brings ssl, 7 MB that an engine in
threads has no use for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TypeVar

from edgeprefix.runtime.engine.stream import Submit
from edgeprefix.runtime.work.completion import Piece
from edgeprefix.runtime.work.ticket import Ticket

T = TypeVar("T")


async def result_of(ticket: Ticket[T]) -> T:
    """Waits for a ticket's result; cancelling the task cancels the request."""
    try:
        return await asyncio.wrap_future(ticket.future)
    finally:
        if not ticket.done:
            ticket.cancel()


async def stream_pieces(submit: Submit) -> AsyncIterator[Piece]:
    """PieceStream for asyncio; closing the iterator cancels the request."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[Piece | None] = asyncio.Queue()

    def put(piece: Piece | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

    ticket = submit(put)
    ticket.future.add_done_callback(lambda _: put(None))
    try:
        while (piece := await pieces.get()) is not None:
            yield piece
        ticket.result()  # raises what went wrong
    finally:
        if not ticket.done:
            ticket.cancel()
