"""Probes that feed one text, for its log-probabilities or its keys and values."""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np

from edgeprefix.runtime.decoding.cache import Array
from edgeprefix.runtime.scoring.logprobs import finite_logprobs
from edgeprefix.runtime.scoring.scores import TextLogprobs
from edgeprefix.runtime.work.resident import ResidentPrefix
from edgeprefix.runtime.work.slot import Ids, Logits, Slot
from edgeprefix.runtime.work.ticket import Ticket
from edgeprefix.runtime.work.work import Start


class TextProbe:
    """Log-probabilities of a text's own tokens: work for the scheduler."""

    lanes = 1

    def __init__(
        self, *, tokens: Ids, prefix: ResidentPrefix | None, ticket: Ticket[TextLogprobs]
    ) -> None:
        self.tokens, self.prefix, self.ticket = tokens, prefix, ticket

    @property
    def feed_length(self) -> int:
        """Tokens of the text."""
        return len(self.tokens)

    def run(self, slot: Slot) -> Generator[int, None, Start | None]:
        """Feeds the text; each chunk's logits are reduced to one number a token before the next is
        fed.
        """
        found: list[float] = []
        for chunk in slot.chunks(self.tokens):
            yield len(chunk)
            following = self.tokens[len(found) + 1 : len(found) + 1 + len(chunk)]
            logprobs = finite_logprobs(slot.feed(chunk)[: len(following)])
            found += logprobs[np.arange(len(following)), following].tolist()
        self.ticket.resolve(TextLogprobs(tokens=tuple(self.tokens.tolist()), logprobs=tuple(found)))
        return None


class DistributionProbe:
    """Log-probabilities of the whole vocabulary after each token of a text, [S, V]: work for the
    scheduler.
    """

    lanes = 1

    def __init__(
        self, *, tokens: Ids, prefix: ResidentPrefix | None, ticket: Ticket[Logits]
    ) -> None:
        self.tokens, self.prefix, self.ticket = tokens, prefix, ticket

    @property
    def feed_length(self) -> int:
        """Tokens of the text."""
        return len(self.tokens)

    def run(self, slot: Slot) -> Generator[int, None, Start | None]:
        """Feeds the text chunk by chunk."""
        found: list[Logits] = []
        for chunk in slot.chunks(self.tokens):
            yield len(chunk)
            found.append(finite_logprobs(slot.feed(chunk)))
        self.ticket.resolve(np.concatenate(found))
        return None


class CompileProbe:
    """Keys and values of a text: work for the scheduler. The result is packed, the task's own
    prefix in front included.
    """

    lanes = 1

    def __init__(
        self,
        *,
        tokens: Ids,
        prefix: ResidentPrefix | None,
        ticket: Ticket[list[Array]],
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.tokens, self.prefix, self.ticket = tokens, prefix, ticket
        self._progress = progress or (lambda done: None)

    @property
    def feed_length(self) -> int:
        """Tokens of the text."""
        return len(self.tokens)

    def run(self, slot: Slot) -> Generator[int, None, Start | None]:
        """Feeds the text and reads the slot."""
        done = 0
        for count in slot.prefill(self.tokens):
            self._progress(done)
            yield count
            done += count
        self._progress(done)
        self.ticket.resolve(slot.read(slot.length))
        return None
