"""Rounds of samples become numbers: one file for what a round gives and what the report
says of it.
"""

from __future__ import annotations

from edgeprefix.bench.cells import Cell
from edgeprefix.bench.report import Measurement
from edgeprefix.bench.spread import Number, percentiles
from edgeprefix.bench.stopwatch import POOLED, Samples


class Collector:
    """Keeps the rounds of every cell in the order they were measured."""

    def __init__(self) -> None:
        self._rounds: dict[Cell, list[Samples]] = {}

    def add(self, cell: Cell, samples: Samples) -> None:
        """One more round of a cell."""
        self._rounds.setdefault(cell, []).append(samples)

    @property
    def cells(self) -> list[Cell]:
        """Those of which there is at least one round."""
        return list(self._rounds)

    def measurement(self, cell: Cell, limit_tokens_per_s: float | None = None) -> Measurement:
        """A cell's numbers over all its rounds."""
        rounds = self._rounds[cell]
        numbers: dict[str, Number] = {}
        for name in rounds[0]:
            if (cell.kind, name) in POOLED:
                numbers |= percentiles(name, [samples[name] for samples in rounds])
            else:
                numbers[name] = Number.of([samples[name][0] for samples in rounds])
        return Measurement(cell, numbers, limit_tokens_per_s)
