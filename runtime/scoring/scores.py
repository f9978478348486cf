"""What scoring gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload


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
