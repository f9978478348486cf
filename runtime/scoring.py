"""Log-probabilities instead of text: labels of a classification, tokens of a text, perplexity.

The common context is fed once; every option is then fed behind it into the same slot, and options
that begin alike share that part too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from edgeprefix.runtime.decoding.cache import Array
from edgeprefix.runtime.errors import NumericalError
from edgeprefix.runtime.generation import sampling
from edgeprefix.runtime.scheduling.ticket import Ticket
from edgeprefix.runtime.scheduling.work import Ids, Logits, ResidentPrefix, Slot, Start, Turn


@dataclass(frozen=True)
class Scores(Sequence[float]):
    """One number for each option, in their order: a sum of log-probabilities, or what was made of
    it.

    >>> scores = Scores(("yes", "no"), (-0.1, -2.4))
    >>> scores[0], scores.best, round(scores.probabilities["yes"], 2)
    (-0.1, 'yes', 0.91)
    """

    options: tuple[str, ...]
    values: tuple[float, ...]

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[float]: ...
    def __getitem__(self, index: int | slice) -> float | Sequence[float]:
        return self.values[index]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def best(self) -> str:
        """The option with the largest score."""
        return self.options[max(range(len(self.values)), key=self.values.__getitem__)]

    @property
    def by_option(self) -> dict[str, float]:
        """Score by option."""
        return dict(zip(self.options, self.values, strict=True))

    @property
    def probabilities(self) -> dict[str, float]:
        """The scores as probabilities among the options: their softmax."""
        top = max(self.values)
        weights = [math.exp(value - top) for value in self.values]
        return {
            option: weight / sum(weights)
            for option, weight in zip(self.options, weights, strict=True)
        }


@dataclass(frozen=True, kw_only=True)
class TextLogprobs:
    """Log-probability of each token of a text, given all before it."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    """For tokens[1:]: the first has nothing before it that would predict it."""

    @property
    def total(self) -> float:
        """Sum of the log-probabilities."""
        return math.fsum(self.logprobs)

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability; NaN for a single token."""
        return math.exp(-self.total / len(self.logprobs)) if self.logprobs else math.nan


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
        ticket: Ticket[list[float]],
    ) -> None:
        self.context, self.prefix, self.ticket = context, prefix, ticket
        self._options = [tuple(option) for option in options]
        self._found: dict[tuple[int, ...], float] = {}
        """Log-probability of the last token of each beginning of an option, given those
        before it.
        """
        self._following = _following(self._options)
        self._waiting = _branches(self._options)
        self._walks: list[_Walk] = []

    @property
    def feed_length(self) -> int:
        """All tokens: context and options, so that it gets a slot of its own for as long as it
        takes.
        """
        return len(self.context) + sum(map(len, self._options))

    def run(self, slot: Slot) -> Generator[int, None, Start | None]:
        """Feeds the context, and the options too when that takes fewer runs than decoding them."""
        self._note((), (yield from slot.prefill(self.context)))
        branches = self._waiting
        steps = max(
            max(map(len, branches), default=0), math.ceil(sum(map(len, branches)) / slot.most)
        )
        # By `most`, not `free`: the way must not depend on the company
        if branches and 2 * steps <= len(branches):
            self._waiting = branches[slot.free :]
            self._walks = [_Walk(branch) for branch in branches[: slot.free]]
            return Start(self, Turn([walk.branch[0] for walk in self._walks]))
        yield from self._feed(slot, branches)
        self.ticket.resolve(self._sums())
        return None

    def advance(self, logits: Logits) -> Turn:
        """Logits [branches that are walked, V] → their next tokens; who is at the end takes a
        branch that waits.
        """
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
            self.ticket.resolve(self._sums())
        tokens = [None if walk is None else walk.branch[walk.fed] for walk in walks]
        return Turn(tokens, rewind=[walk is not None and walk.fed == 0 for walk in walks])

    def draft(self) -> Sequence[int]:
        """Nothing to guess: the tokens are given."""
        return ()

    def _feed(self, slot: Slot, branches: Sequence[tuple[int, ...]]) -> Generator[int, None, None]:
        """Feeds the branches one by one; what one has in common with the one before it is in the
        slot already.
        """
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
        logprobs = _logprobs(logits)
        for token in self._following[beginning]:
            self._found[(*beginning, token)] = float(logprobs[token])

    def _sums(self) -> list[float]:
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
    """What has to be fed to see all options: all but their last tokens, without those that begin
    another, in order.
    """
    fed = sorted({option[:-1] for option in options if len(option) > 1})
    return [
        one for one, after in zip(fed, (*fed[1:], ()), strict=False) if after[: len(one)] != one
    ]


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
            logprobs = _logprobs(slot.feed(chunk)[: len(following)])
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
            found.append(_logprobs(slot.feed(chunk)))
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


def _logprobs(logits: Logits) -> Logits:
    result = sampling.log_softmax(logits)
    if result.size and not math.isfinite(float(result.max())):
        raise NumericalError("the base gave NaN or infinity as a logit; check prefix and precision")
    return result


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common beginning."""
    pairs: Iterator[tuple[int, int]] = zip(first, second, strict=False)
    return next(
        (place for place, (one, other) in enumerate(pairs) if one != other),
        min(len(first), len(second)),
    )
