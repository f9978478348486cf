"""Pieces of text as they come, for threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import SimpleQueue

from edgeprefix.runtime.work.completion import Completion, Piece
from edgeprefix.runtime.work.ticket import Ticket

Submit = Callable[[Callable[[Piece], None]], Ticket[Completion]]
"""Submits a request whose pieces go to the callable given."""


class PieceStream(Iterator[Piece]):
    """Iterates over one generation's pieces. Leaving it early (or letting go of it) cancels it."""

    def __init__(self, submit: Submit) -> None:
        pieces: SimpleQueue[Piece | None] = SimpleQueue()
        self._pieces = pieces
        self._ticket = submit(pieces.put)
        # Not `self._pieces`: the running request must not keep a stream alive that its caller has
        # let go of.
        self._ticket.when_done(lambda _: pieces.put(None))
        self._over = False

    def __iter__(self) -> PieceStream:
        return self

    def __next__(self) -> Piece:
        if self._over:
            raise StopIteration
        self._ticket.require_coming()
        piece = self._pieces.get()
        if piece is None:
            self._over = True
            self._ticket.result()  # raises what went wrong
            raise StopIteration
        return piece

    def __enter__(self) -> PieceStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_ticket"):
            self.close()

    def close(self) -> None:
        """Ends the stream; the request is cancelled if it still runs."""
        self._over = True
        if not self._ticket.done:
            self._ticket.cancel()

    def completion(self) -> Completion:
        """Waits for the end and returns the whole result, whether or not all pieces were read."""
        return self._ticket.result()
