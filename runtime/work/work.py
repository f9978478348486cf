"""What the scheduler runs: generations, which join the batch and decode step by step, and probes,
which only feed.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgeprefix.runtime.work.completion import Completion
from edgeprefix.runtime.work.resident import ResidentPrefix
from edgeprefix.runtime.work.slot import Logits, Slot
from edgeprefix.runtime.work.ticket import Ticket


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
    """Work that takes part in every step after `run`, until all its lanes are finished."""

    def advance(self, logits: Logits) -> Turn:
        """Logits [lanes that go on, V] → their next tokens."""
        ...

    def draft(self) -> Sequence[int]:
        """Tokens that may well come next (speculation); empty without a guess."""
        ...

    def partial(self, reason: str) -> Completion | None:
        """What there is, when it is ended early for that reason; None without a token of text."""
        ...


@dataclass(frozen=True)
class Start:
    """A generation joins the batch: the first token of each lane."""

    generation: Generation
    turn: Turn
