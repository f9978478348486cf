"""Probes that feed one text, for its log-probabilities or its keys and values."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Generic, TypeVar

import numpy as np

from edgeprefix.runtime.decoding.cache import Array
from edgeprefix.runtime.scoring.logprobs import finite_logprobs
from edgeprefix.runtime.scoring.scores import TextLogprobs
from edgeprefix.runtime.work.resident import ResidentPrefix
from edgeprefix.runtime.work.slot import Ids, Logits, Slot
from edgeprefix.runtime.work.ticket import Ticket

R = TypeVar("R")


class _Probe(Generic[R]):
    """Work that feeds the tokens of one text and then has its result."""

    lanes = 1

    def __init__(self, *, tokens: Ids, prefix: ResidentPrefix | None, ticket: Ticket[R]) -> None:
        self.tokens, self.prefix, self.ticket = tokens, prefix, ticket

    @property
    def feed_length(self) -> int:
        """Tokens of the text."""
        return len(self.tokens)


class TextProbe(_Probe[TextLogprobs]):
    """Log-probabilities of a text's own tokens: work for the scheduler."""

    def run(self, slot: Slot) -> Generator[int, None, None]:
        """Feeds the text; each chunk's logits become one number a token before the next chunk."""
        found: list[float] = []
        for chunk in slot.chunks(self.tokens):
            yield len(chunk)
            following = self.tokens[len(found) + 1 : len(found) + 1 + len(chunk)]
            logprobs = finite_logprobs(slot.feed(chunk)[: len(following)])
            found += logprobs[np.arange(len(following)), following].tolist()
        self.ticket.resolve(TextLogprobs(tokens=tuple(self.tokens.tolist()), logprobs=tuple(found)))


class DistributionProbe(_Probe[Logits]):
    """Log-probabilities [S, V] of the vocabulary after each token: work for the scheduler."""

    def run(self, slot: Slot) -> Generator[int, None, None]:
        """Feeds the text chunk by chunk."""
        found: list[Logits] = []
        for chunk in slot.chunks(self.tokens):
            yield len(chunk)
            found.append(finite_logprobs(slot.feed(chunk)))
        self.ticket.resolve(np.concatenate(found))


class CompileProbe(_Probe[R]):
    """Keys and values of a text, the prefix in front of it included: work for the scheduler."""

    def __init__(
        self,
        *,
        tokens: Ids,
        prefix: ResidentPrefix | None,
        ticket: Ticket[R],
        progress: Callable[[int], object] | None,
        finish: Callable[[Sequence[Array]], object],
    ) -> None:
        """`progress` is told how many tokens are done; `finish` gets the packed keys and values."""
        super().__init__(tokens=tokens, prefix=prefix, ticket=ticket)
        self._progress, self._finish = progress or (lambda done: None), finish

    def run(self, slot: Slot) -> Generator[int, None, None]:
        """Feeds the text and reads the slot."""
        done = 0
        for count in slot.prefill(self.tokens):
            self._progress(done)
            yield count
            done += count
        self._progress(done)
        self._finish(slot.read(slot.length))
