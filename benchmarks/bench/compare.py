"""Two reports side by side: for every number that both have, the ratio with its spread, and whether
it is more than noise.

With at least five rounds on both sides the spread is a bootstrap interval of the ratio of medians
(2,000 draws, 99 %, seeded); with fewer it runs from the least favourable to the most favourable
pair of rounds. Rounds of one run know nothing of what differs between two runs, so that differences
within `noise` count as noise in any case.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprefix.bench.cells import Cell
from edgeprefix.bench.names import more_is_better
from edgeprefix.bench.report import Report
from edgeprefix.bench.spread import Number
from edgeprefix.runtime.contracts.files import write_atomic

KIND = "edgeprefix-bench-comparison"
NOISE = 0.03
BOOTSTRAP_ROUNDS = 5
_DRAWS = 2000


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One number of a cell in both reports; `ratio` is B over A, `low` and `high` its spread."""

    cell: Cell
    name: str
    a: float
    b: float
    ratio: float
    low: float
    high: float
    noise: float

    @property
    def verdict(self) -> str:
        """`better` or `worse` for B, or `noise` when the spread touches 1 give or take the
        noise.
        """
        if self.high >= 1 / (1 + self.noise) and self.low <= 1 + self.noise:
            return "noise"
        return "better" if (self.ratio > 1) == more_is_better(self.name) else "worse"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        numbers = {
            key: float(f"{getattr(self, key):.6g}") for key in ("a", "b", "ratio", "low", "high")
        }
        return {"cell": self.cell.to_json(), "name": self.name, **numbers, "verdict": self.verdict}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two reports, what differs, and what only one of them has."""

    a: Report
    b: Report
    differences: tuple[Difference, ...]
    only_one: tuple[str, ...]
    noise: float

    @property
    def cautions(self) -> list[str]:
        """What makes the two hard to compare: another base or precision, a busy machine, other
        settings.
        """
        notes = []
        for key in ("base", "precision", "base_sha256"):
            if self.a.bundle[key] != self.b.bundle[key]:
                notes.append(
                    f"{key.replace('_', ' ')} differs: {self.a.bundle[key]} and "
                    f"{self.b.bundle[key]}"
                )
        for key in ("new_tokens", "threads", "prefix_positions"):
            one, other = self.a.settings.get(key), self.b.settings.get(key)
            if one != other:
                notes.append(f"{key.replace('_', ' ')} differs: {one} and {other}")
        for letter, report in (("A", self.a), ("B", self.b)):
            notes += [f"{letter}: {warning}" for warning in report.warnings]
        return notes

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "kind": KIND, "format_version": 1, "noise": self.noise,
            "a": side_facts(self.a), "b": side_facts(self.b),
            "differences": [one.to_json() for one in self.differences],
            "only_one": list(self.only_one), "cautions": self.cautions,
        }  # fmt: skip

    def save(self, path: Path) -> None:
        """Writes the JSON file atomically. Raises OutputError."""
        write_atomic(
            path, (json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n").encode()
        )


def compare(a: Report, b: Report, *, noise: float = NOISE) -> Comparison:
    """Every number that both reports have, in A's order."""
    others = {one.cell: one for one in b.measurements}
    differences = [
        _difference(one.cell, name, number, others[one.cell].numbers[name], noise)
        for one in a.measurements
        if one.cell in others
        for name, number in one.numbers.items()
        if name in others[one.cell].numbers
    ]
    mine = {one.cell for one in a.measurements}
    only = [f"{one.cell.label} (only in A)" for one in a.measurements if one.cell not in others]
    only += [f"{one.cell.label} (only in B)" for one in b.measurements if one.cell not in mine]
    return Comparison(a=a, b=b, differences=tuple(differences), only_one=tuple(only), noise=noise)


def ratio_spread(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest plausible ratio of B's median to A's; all samples must be positive."""
    if min(len(a), len(b)) < BOOTSTRAP_ROUNDS:
        return min(b) / max(a), max(b) / min(a)
    random = np.random.default_rng(0)
    medians = [
        np.median(random.choice(np.asarray(samples), (_DRAWS, len(samples))), axis=1)
        for samples in (a, b)
    ]
    low, high = np.percentile(medians[1] / medians[0], [0.5, 99.5])
    return float(low), float(high)


def side_facts(report: Report) -> dict[str, Any]:
    """What tells one report from another."""
    return {
        "created": report.created,
        "bundle": report.bundle["name"],
        "base": report.bundle["base"],
        "precision": report.bundle["precision"],
        "processor": report.machine["processor"],
        "versions": dict(report.versions),
        "rounds": report.circumstances.get("rounds"),
    }


def _difference(cell: Cell, name: str, a: Number, b: Number, noise: float) -> Difference:
    tiny = 1e-12  # a clock that saw nothing pass
    one, other = ([max(sample, tiny) for sample in number.samples] for number in (a, b))
    low, high = ratio_spread(one, other)
    ratio = max(b.value, tiny) / max(a.value, tiny)
    return Difference(
        cell=cell,
        name=name,
        a=a.value,
        b=b.value,
        ratio=ratio,
        low=min(low, ratio),
        high=max(high, ratio),
        noise=noise,
    )
