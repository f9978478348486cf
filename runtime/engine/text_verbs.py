"""The verbs that give text. Each is a request, `submit`, and a way to wait for its ticket."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Literal, TypeVar, Unpack, overload

from edgeprefix.runtime.engine.in_order import in_order, started
from edgeprefix.runtime.engine.prepare import Prompt
from edgeprefix.runtime.engine.requests import (
    ChatRequest,
    EngineRequest,
    GenerateSettings,
    Request,
    StreamedRequest,
)
from edgeprefix.runtime.engine.stream import PieceStream
from edgeprefix.runtime.errors import EdgePrefixError, RequestError
from edgeprefix.runtime.generation.options import Settings
from edgeprefix.runtime.renamed import takes_prefix_as_task
from edgeprefix.runtime.tasks.chat import Message
from edgeprefix.runtime.work.completion import Completion, Piece
from edgeprefix.runtime.work.ticket import Ticket

R = TypeVar("R")


class Submitter(ABC):
    """Whatever takes requests: all that the verbs need."""

    @property
    @abstractmethod
    def max_batch(self) -> int:
        """Sequences that run at once."""

    @abstractmethod
    def submit(self, request: EngineRequest[R], *, wait: bool = False) -> Ticket[R]:
        """Starts a request and returns at once; the ticket waits for the result or cancels it."""

    async def _awaited(self, request: EngineRequest[R]) -> R:
        from edgeprefix.runtime.engine.awaiting import result_of

        return await result_of(lambda: self.submit(request))

    @overload
    def submit_each(
        self, requests: Iterable[EngineRequest[R]], *, return_exceptions: Literal[False] = False
    ) -> Iterator[tuple[int, R]]: ...
    @overload
    def submit_each(
        self, requests: Iterable[EngineRequest[R]], *, return_exceptions: bool
    ) -> Iterator[tuple[int, R | Exception]]: ...
    def submit_each(
        self, requests: Iterable[EngineRequest[R]], *, return_exceptions: bool = False
    ) -> Iterator[tuple[int, R | Exception]]:
        """Like `submit_many`, but yields (row, result), and takes requests as slots become free."""
        tickets = (started(self.submit, request) for request in requests)
        for row, outcome in in_order(tickets, ahead=4 * self.max_batch):
            if isinstance(outcome, Exception) and not return_exceptions:
                raise outcome
            yield row, outcome

    @overload
    def submit_many(
        self, requests: Iterable[EngineRequest[R]], *, return_exceptions: Literal[False] = False
    ) -> list[R]: ...
    @overload
    def submit_many(
        self, requests: Iterable[EngineRequest[R]], *, return_exceptions: bool
    ) -> list[R | Exception]: ...
    def submit_many(
        self, requests: Iterable[EngineRequest[R]], *, return_exceptions: bool = False
    ) -> list[R] | list[R | Exception]:
        """Runs many requests, of different tasks if need be, in one mixed batch; results come in
        the requests' order.

        When one fails its error is raised, which names the `row` and holds the results `finished`
        before it, and the others are cancelled. With `return_exceptions` the error takes the
        result's place, and the others go on.
        """
        results: list[R | Exception] = []
        try:
            for _, outcome in self.submit_each(requests, return_exceptions=return_exceptions):
                results.append(outcome)
        except EdgePrefixError as error:
            error.finished = tuple(results)
            raise
        return results

    @overload
    async def asubmit_many(
        self, requests: Iterable[EngineRequest[R]], *, return_exceptions: Literal[False] = False
    ) -> list[R]: ...
    @overload
    async def asubmit_many(
        self, requests: Iterable[EngineRequest[R]], *, return_exceptions: bool
    ) -> list[R | Exception]: ...
    async def asubmit_many(
        self, requests: Iterable[EngineRequest[R]], *, return_exceptions: bool = False
    ) -> list[R] | list[R | Exception]:
        """`submit_many` for asyncio; cancelling the task cancels the requests."""
        from edgeprefix.runtime.engine.awaiting import results_of

        return await results_of(
            (functools.partial(self.submit, request, wait=True) for request in requests),
            ahead=2 * self.max_batch,
            return_exceptions=return_exceptions,
        )


class TextVerbs(Submitter):
    """Generation and chat: at once, piece by piece, by the batch, and for asyncio.

    Where a prompt is expected, a Request or ChatRequest may stand, alone.
    """

    @takes_prefix_as_task
    def generate(
        self,
        prompt: Prompt | Request,
        *,
        task: str | None = None,
        template: str | None = None,
        timeout_s: float | None = None,
        **settings: Unpack[Settings],
    ) -> Completion:
        """Generates a text. `settings` are the fields of GenerationOptions; they override the
        task's own defaults.

        Raises RequestError, PromptTooLongError, UnknownTaskError, TemplateError, QueueFullError,
        RequestTimeout (which holds the text so far), NumericalError, EngineClosedError.
        """
        return self.submit(
            _request(prompt, task=task, template=template, timeout_s=timeout_s, **settings)
        ).wait()

    async def agenerate(
        self, prompt: Prompt | Request, **settings: Unpack[GenerateSettings]
    ) -> Completion:
        """`generate` for asyncio; cancelling the task cancels the request."""
        return await self._awaited(_request(prompt, **settings))

    def chat(
        self,
        messages: Sequence[Message],
        *,
        task: str | None = None,
        timeout_s: float | None = None,
        **settings: Unpack[Settings],
    ) -> Completion:
        """Generates a conversation's next message. Raises like `generate`, and RequestError when
        the base has no chat template or refuses the messages.
        """
        return self.submit(ChatRequest(messages, task=task, timeout_s=timeout_s, **settings)).wait()

    async def achat(
        self,
        messages: Sequence[Message],
        *,
        task: str | None = None,
        timeout_s: float | None = None,
        **settings: Unpack[Settings],
    ) -> Completion:
        """`chat` for asyncio."""
        return await self._awaited(
            ChatRequest(messages, task=task, timeout_s=timeout_s, **settings)
        )

    @takes_prefix_as_task
    def stream(
        self,
        prompt: Prompt | Request,
        *,
        task: str | None = None,
        template: str | None = None,
        timeout_s: float | None = None,
        **settings: Unpack[Settings],
    ) -> PieceStream:
        """Generates a text piece by piece. Leaving the iterator early cancels the request."""
        request = _request(prompt, task=task, template=template, timeout_s=timeout_s, **settings)
        return PieceStream(lambda on_piece: self.submit(StreamedRequest(request, on_piece)))

    @takes_prefix_as_task
    def astream(
        self, prompt: Prompt | Request, **settings: Unpack[GenerateSettings]
    ) -> AsyncIterator[Piece]:
        """`stream` for asyncio: `async for piece in engine.astream(...)`."""
        request = _request(prompt, **settings)
        from edgeprefix.runtime.engine.awaiting import stream_pieces

        return stream_pieces(lambda on_piece: self.submit(StreamedRequest(request, on_piece)))

    generate_many = Submitter.submit_many
    generate_each = Submitter.submit_each
    agenerate_many = Submitter.asubmit_many


def _request(prompt: Prompt | Request, **settings: Unpack[GenerateSettings]) -> Request:
    if not isinstance(prompt, Request):
        return Request(prompt, **settings)
    if given := [name for name, value in settings.items() if value is not None]:
        raise RequestError(f"{', '.join(given)}: give it to the {type(prompt).__name__} itself")
    return prompt
