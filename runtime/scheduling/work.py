"""What the scheduler runs: generations, which join the batch and decode step by step, and probes,
which only feed.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgeprefix.runtime.decoding.cache import Array, Packed
from edgeprefix.runtime.decoding.decoder import SlotDecoder
from edgeprefix.runtime.scheduling.ticket import Ticket

Logits = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ResidentPrefix:
    """A verified prefix in the form that is copied into a slot."""

    name: str
    length: int
    packed: tuple[Packed, ...]

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return sum(part.nbytes for part in self.packed)


@dataclass(slots=True)
class Turn:
    """What a generation wants after a step: for each of its lanes the next token, None for a lane
    that is finished.

    `parents` (beam search): lane i goes on from the sequence of lane parents[i].
    """

    tokens: Sequence[int | None]
    parents: Sequence[int] | None = None
    rewind: Sequence[bool] | None = None
    """Lanes that first forget what stands behind the prompt, which they have in common."""


class Work(Protocol):
    """One request as the scheduler sees it."""

    @property
    def ticket(self) -> Ticket[Any]:
        """Where its result goes, and where cancellation and deadline are asked."""
        ...

    @property
    def prefix(self) -> ResidentPrefix | None:
        """What stands before its text."""
        ...

    @property
    def lanes(self) -> int:
        """Free slots that it needs to begin."""
        ...

    @property
    def feed_length(self) -> int:
        """Tokens that it feeds at first; a short one is put straight into a hole of the batch."""
        ...

    def run(self, slot: Slot) -> Generator[int, None, Start | None]:
        """Feeds its tokens, yielding before each run of the graph the number of tokens that it is
        about to feed.

        Returns how to go on as a member of the batch, or None when its result is with the ticket
        already.
        """
        ...


class Generation(Work, Protocol):
    """Work that decodes: after `run` it takes part in every step until each of its lanes is
    finished.
    """

    def advance(self, logits: Logits) -> Turn:
        """Logits [lanes that go on, V] → their next tokens."""
        ...

    def draft(self) -> Sequence[int]:
        """Tokens that may well come next (speculation); empty without a guess."""
        ...


@dataclass(frozen=True)
class Start:
    """A generation joins the batch: the first token of each lane."""

    generation: Generation
    turn: Turn


class Slot:
    """One slot of the cache for a probe or a prompt: feeds tokens in chunks behind the prefix."""

    def __init__(
        self, decoder: SlotDecoder, index: int, chunk: int, prefix_length: int, *, free: int = 1
    ) -> None:
        self._decoder, self._chunk = decoder, chunk
        self.index = index
        self.free, self.most = free, decoder.slots
        """Lanes that its work may start with now (the slots that nobody else uses, this one in),
        and in an idle engine.
        """
        self.length = prefix_length
        """Positions in use."""

    def chunks(self, tokens: Ids) -> list[Ids]:
        """The tokens in pieces that one run of the graph may have."""
        return [tokens[start : start + self._chunk] for start in range(0, len(tokens), self._chunk)]

    def feed(self, tokens: Ids, *, wanted: Sequence[int] | None = None) -> Logits:
        """Runs the graph over a chunk; returns logits [N, V] of the `wanted` tokens (indices into
        it; None: all).
        """
        logits = self._decoder.feed(self.index, tokens, start=self.length, wanted=wanted)
        self.length += len(tokens)
        return logits

    def prefill(self, tokens: Ids) -> Generator[int, None, Logits]:
        """Feeds a prompt chunk by chunk, yielding the length of each before; returns logits [V]
        after the last token.
        """
        *chunks, last = self.chunks(tokens)  # prompts are not empty
        for chunk in chunks:
            yield len(chunk)
            self.feed(chunk, wanted=[])
        yield len(last)
        row: Logits = self.feed(last, wanted=[len(last) - 1])[0]
        return row

    def rewind(self, length: int) -> None:
        """Forgets everything behind the first `length` positions."""
        self.length = length

    def read(self, length: int) -> list[Array]:
        """A packed copy of the first `length` positions."""
        return self._decoder.cache.read(self.index, length)
