"""How far a graph's logits are from torch's, position by position.

Positions come some at a time, and of each no more is kept than sums: both sides of a text over a
vocabulary of 262,144 would else stand in memory many times over. N positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]

_AT_ONCE = 1 << 23  # numbers, in double precision and several times over


@dataclass(frozen=True, kw_only=True)
class CaseReport:
    """One way of feeding the same text, compared position by position."""

    name: str
    positions: int
    max_abs: float
    relative: float
    kl: float
    noise: float
    top1: float
    first_divergence: int | None
    """Index of the first position whose first choice differs, None when all agree."""


def compare(name: str, actual: Sequence[Array], expected: Sequence[Array]) -> CaseReport:
    """Compares logits of the same positions, each [V]; `expected` is torch's."""
    comparison = Comparison(name)
    size = max(1, _AT_ONCE // len(expected[0]))
    for start in range(0, len(expected), size):
        block = slice(start, start + size)
        comparison.add(np.stack(actual[block]), np.stack(expected[block]))
    return comparison.report()


class Comparison:
    """A comparison that grows; numbers that are none stay so in the report."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._largest: list[float] = []  # of |Δ| and of torch's |logits|, block by block
        self._reach: list[float] = []
        self._agree: list[npt.NDArray[np.bool_]] = []
        self._divergence = self._added = self._own = 0.0

    @property
    def positions(self) -> int:
        """N so far."""
        return sum(map(len, self._agree))

    def add(self, actual: Array, expected: Array) -> None:
        """Some more positions: the graph's logits and torch's, [n, V]."""
        got, wanted = actual.astype(np.float64), expected.astype(np.float64)
        difference = got - wanted
        self._largest.append(float(np.abs(difference).max()))
        self._reach.append(float(np.abs(wanted).max()))
        self._agree.append(_same_choice(got, wanted))
        self._divergence += float(_divergence(wanted, got).sum())
        self._added += _squares(difference)
        self._own += _squares(wanted)

    def report(self) -> CaseReport:
        """What was found over all positions."""
        agree = np.concatenate(self._agree)
        diverging = np.flatnonzero(~agree)
        largest = float(np.max(self._largest))
        return CaseReport(
            name=self._name,
            positions=len(agree),
            max_abs=largest,
            relative=largest / max(float(np.max(self._reach)), 1e-30),
            kl=self._divergence / len(agree),
            noise=float(np.sqrt(self._added / max(self._own, 1e-60))),
            top1=float(agree.mean()),
            first_divergence=int(diverging[0]) if len(diverging) else None,
        )


def _same_choice(got: Array, wanted: Array) -> npt.NDArray[np.bool_]:
    """Whether the graph's first choice is torch's, or one that torch itself holds equal to a
    hundred-thousandth.
    """
    best = wanted.max(axis=1)
    chosen = np.take_along_axis(wanted, got.argmax(axis=1)[:, None], axis=1)[:, 0]
    result: npt.NDArray[np.bool_] = chosen >= best - 1e-5 * np.maximum(1.0, np.abs(best))
    return result


def _divergence(wanted: Array, got: Array) -> Array:
    p, q = _log_softmax(wanted), _log_softmax(got)
    result: Array = np.maximum((np.exp(p) * (p - q)).sum(axis=1), 0.0)
    return result


def _squares(logits: Array) -> float:
    """Sum of squares within rows: softmax does not see what is added to a whole row."""
    return float(np.square(logits - logits.mean(axis=1, keepdims=True)).sum())


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
