"""A measured number: its value and one sample for each round, from which its spread follows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Number:
    """`value` is the samples' median, or for percentiles that of all times of all rounds; `samples`
    one for each round.
    """

    value: float
    samples: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.samples or not all(map(math.isfinite, (self.value, *self.samples))):
            raise ValueError(
                f"a number needs finite samples, got {self.value} of {self.samples[:5]}"
            )

    @classmethod
    def of(cls, samples: Sequence[float]) -> Number:
        """The median of the rounds."""
        return cls(float(np.median(samples)), tuple(map(float, samples)))

    @property
    def least(self) -> float:
        """The smallest round's."""
        return min(self.samples)

    @property
    def most(self) -> float:
        """The largest round's."""
        return max(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile of the rounds."""
        low, high = np.percentile(self.samples, [25, 75])
        return float(low), float(high)

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the spread written out for readers without this module."""
        low, high = self.quartiles
        return {
            "value": _short(self.value),
            "q1": _short(low),
            "q3": _short(high),
            "min": _short(self.least),
            "max": _short(self.most),
            "samples": [_short(sample) for sample in self.samples],
        }

    @classmethod
    def from_json(cls, data: Any) -> Number:
        """Reads `to_json`'s form. Raises KeyError, TypeError or ValueError."""
        return cls(float(data["value"]), tuple(float(sample) for sample in data["samples"]))


def percentiles(name: str, rounds: Sequence[Sequence[float]]) -> dict[str, Number]:
    """NAME_p50, _p90 and _p99 over all times; each round's own percentile is its sample."""
    pooled = [time for times in rounds for time in times]
    return {
        f"{name}_p{share}": Number(
            float(np.percentile(pooled, share)),
            tuple(float(np.percentile(times, share)) for times in rounds),
        )
        for share in PERCENTILES
    }


def _short(value: float) -> float:
    """Six significant digits: more would claim what no clock can."""
    return float(f"{value:.6g}")
