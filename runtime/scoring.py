"""Log-probabilities instead of text: labels of a classification, tokens of a text, perplexity.

The common context is fed once; every option is then fed behind it into the same slot, and options that begin alike share
that part too.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from edgeprefix.runtime.decoding.cache import Array
from edgeprefix.runtime.errors import NumericalError
from edgeprefix.runtime.generation import sampling
from edgeprefix.runtime.scheduling.ticket import Ticket
from edgeprefix.runtime.scheduling.work import Ids, Logits, ResidentPrefix, Slot, Start


@dataclass(frozen=True)
class Scores(Sequence[float]):
    """One number for each option, in their order: a sum of log-probabilities, or what was made of it.

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
        return {option: weight / sum(weights) for option, weight in zip(self.options, weights, strict=True)}


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
    """Sums of log-probabilities of several continuations of one context: work for the scheduler."""

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
        self._options = [list(option) for option in options]

    @property
    def feed_length(self) -> int:
        """All tokens: context and options, so that it gets a slot of its own for as long as it takes."""
        return len(self.context) + sum(map(len, self._options))

    def run(self, slot: Slot) -> Generator[int, None, Start | None]:
        """Feeds the context, then the options one by one in alphabetical order, so that neighbours share most."""
        last = yield from slot.prefill(self.context)
        base = slot.length
        sums = [0.0] * len(self._options)
        before: list[int] = []
        rows = [_logprobs(last)]  # rows[i]: distribution of an option's token i
        for number in sorted(range(len(self._options)), key=lambda number: self._options[number]):
            option = self._options[number]
            shared = min(_common(before, option), len(option) - 1)
            del rows[shared + 1 :]
            slot.rewind(base + shared)
            for chunk in slot.chunks(np.asarray(option[shared:-1], np.int64)):
                yield len(chunk)
                rows += [_logprobs(row) for row in slot.feed(chunk)]
            sums[number] = math.fsum(float(rows[place][token]) for place, token in enumerate(option))
            before = option[:-1]
        self.ticket.resolve(sums)
        return None


class TextProbe:
    """Log-probabilities of a text's own tokens: work for the scheduler."""

    lanes = 1

    def __init__(self, *, tokens: Ids, prefix: ResidentPrefix | None, ticket: Ticket[TextLogprobs]) -> None:
        self.tokens, self.prefix, self.ticket = tokens, prefix, ticket

    @property
    def feed_length(self) -> int:
        """Tokens of the text."""
        return len(self.tokens)

    def run(self, slot: Slot) -> Generator[int, None, Start | None]:
        """Feeds the text; each chunk's logits are reduced to one number a token before the next is fed."""
        found: list[float] = []
        for chunk in slot.chunks(self.tokens):
            yield len(chunk)
            following = self.tokens[len(found) + 1 : len(found) + 1 + len(chunk)]
            logprobs = _logprobs(slot.feed(chunk)[: len(following)])
            found += logprobs[np.arange(len(following)), following].tolist()
        self.ticket.resolve(TextLogprobs(tokens=tuple(self.tokens.tolist()), logprobs=tuple(found)))
        return None


class CompileProbe:
    """Keys and values of a text: work for the scheduler. The result is packed, the task's own prefix in front included."""

    lanes = 1

    def __init__(self, *, tokens: Ids, prefix: ResidentPrefix | None, ticket: Ticket[list[Array]]) -> None:
        self.tokens, self.prefix, self.ticket = tokens, prefix, ticket

    @property
    def feed_length(self) -> int:
        """Tokens of the text."""
        return len(self.tokens)

    def run(self, slot: Slot) -> Generator[int, None, Start | None]:
        """Feeds the text and reads the slot."""
        yield from slot.prefill(self.tokens)
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
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))
