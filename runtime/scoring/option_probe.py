"""Sums of log-probabilities of several continuations of one context.

The common context is fed once; every option is then fed behind it into the same slot, and options
that begin alike share that part too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprefix.runtime.scoring.logprobs import finite_logprobs
from edgeprefix.runtime.scoring.scores import Scores
from edgeprefix.runtime.work.resident import ResidentPrefix
from edgeprefix.runtime.work.slot import Ids, Logits, Slot
from edgeprefix.runtime.work.ticket import Ticket
from edgeprefix.runtime.work.work import Start, Turn

Sums = Sequence[float]
"""Of the log-probabilities of each option's tokens."""


@dataclass(frozen=True)
class Reference:
    """A context whose sums are taken off another one's."""

    context: Ids
    found: Callable[[Sums], object]
    """Gets its sums."""


class OptionProbe:
    """Sums of log-probabilities of several continuations of one context: work for the scheduler.

    The context is fed once. Then each option is fed behind it in one run, or, when that takes at
    most half as many runs of the graph, the options become lanes of the batch, one token a step
    beside everybody else's: many short labels do.
    """

    lanes = 1

    def __init__(
        self,
        *,
        context: Ids,
        prefix: ResidentPrefix | None,
        options: Sequence[Sequence[int]],
        ticket: Ticket[Scores],
        scores: Callable[[Sums], Scores],
        reference: Reference | None = None,
    ) -> None:
        """`scores` makes the result of the sums. `reference`, a context, is scored before."""
        self.context, self.prefix, self.ticket = context, prefix, ticket
        self._scores, self._reference = scores, reference
        self._options = [tuple(option) for option in options]
        self._found: dict[tuple[int, ...], float] = {}
        """Log-probability of each beginning's last token, given those before it."""
        self._following = _following(self._options)
        self._waiting = _branches(self._options)
        self._walks: list[_Walk] = []

    @property
    def feed_length(self) -> int:
        """All tokens: contexts and options, so that it gets a slot of its own."""
        before = 0 if self._reference is None else len(self._reference.context)
        return before + len(self.context) + sum(map(len, self._options))

    def run(self, slot: Slot) -> Generator[int, None, Start | None]:
        """Feeds the context, and the options too when that takes fewer runs than decoding them."""
        branches = self._waiting
        if self._reference is not None:
            behind_prefix = slot.length
            self._note((), (yield from slot.prefill(self._reference.context)))
            yield from self._feed(slot, branches)
            self._reference.found(self._sums())
            slot.rewind(behind_prefix)
        self._note((), (yield from slot.prefill(self.context)))
        steps = max(
            max(map(len, branches), default=0), math.ceil(sum(map(len, branches)) / slot.most)
        )
        # By `most`, not `free`: the way must not depend on the company
        if branches and 2 * steps <= len(branches):
            self._waiting = branches[slot.free :]
            self._walks = [_Walk(branch) for branch in branches[: slot.free]]
            return Start(self, Turn([walk.branch[0] for walk in self._walks]))
        yield from self._feed(slot, branches)
        self.ticket.resolve(self._scores(self._sums()))
        return None

    def advance(self, logits: Logits) -> Turn:
        """Logits [walked branches, V] → next tokens; who ends takes a branch that waits."""
        walks: list[_Walk | None] = []
        for walk, row in zip(self._walks, logits, strict=True):
            walk.fed += 1
            self._note(walk.branch[: walk.fed], row)
            done = walk.fed == len(walk.branch)
            walks.append(
                walk if not done else _Walk(self._waiting.pop(0)) if self._waiting else None
            )
        self._walks = [walk for walk in walks if walk is not None]
        if not self._walks:
            self.ticket.resolve(self._scores(self._sums()))
        tokens = [None if walk is None else walk.branch[walk.fed] for walk in walks]
        return Turn(tokens, rewind=[walk is not None and walk.fed == 0 for walk in walks])

    def draft(self) -> Sequence[int]:
        """Nothing to guess: the tokens are given."""
        return ()

    def partial(self, reason: str) -> None:
        """Half a score is none."""

    def _feed(self, slot: Slot, branches: Sequence[tuple[int, ...]]) -> Generator[int, None, None]:
        """Feeds the branches one by one, each without what it shares with the one before."""
        base = slot.length
        before: tuple[int, ...] = ()
        for branch in branches:
            shared = _common(before, branch)
            slot.rewind(base + shared)
            for chunk in slot.chunks(np.asarray(branch[shared:], np.int64)):
                yield len(chunk)
                for row in slot.feed(chunk):
                    shared += 1
                    self._note(branch[:shared], row)
            before = branch

    def _note(self, beginning: tuple[int, ...], logits: Logits) -> None:
        """Keeps what the options need of the logits [V] that follow one of their beginnings."""
        logprobs = finite_logprobs(logits)
        for token in self._following[beginning]:
            self._found[(*beginning, token)] = float(logprobs[token])

    def _sums(self) -> Sums:
        return [
            math.fsum(self._found[option[: end + 1]] for end in range(len(option)))
            for option in self._options
        ]


@dataclass(slots=True)
class _Walk:
    """A branch on its way through the batch."""

    branch: tuple[int, ...]
    fed: int = 0
    """Tokens of it that were fed."""


def _following(options: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], set[int]]:
    """The tokens that come behind each beginning of the options."""
    following: dict[tuple[int, ...], set[int]] = {}
    for option in options:
        for place, token in enumerate(option):
            following.setdefault(option[:place], set()).add(token)
    return following


def _branches(options: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """All options but their last tokens, without those that begin another, in order."""
    fed = sorted({option[:-1] for option in options if len(option) > 1})
    return [
        one for one, after in zip(fed, (*fed[1:], ()), strict=False) if after[: len(one)] != one
    ]


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common beginning."""
    pairs: Iterator[tuple[int, int]] = zip(first, second, strict=False)
    return next(
        (place for place, (one, other) in enumerate(pairs) if one != other),
        min(len(first), len(second)),
    )
