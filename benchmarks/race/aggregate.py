"""From records to a result: medians over rounds, ratios to each peer round by round, and what no
peer could do.

A ratio says how much better ours is: tokens/s of ours over the peer's, or the peer's milliseconds
or bytes over ours. Both sides of a ratio are of one round; its spread is that of the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.race.cells import CELLS
from benchmarks.race.records import Record

OURS = "ours"
Place = tuple[str, str, str]
"""Model, precision and cell."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A median with the least and the most of its rounds."""

    median: float
    least: float
    most: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(
            median=statistics.median(values),
            least=min(values),
            most=max(values),
            rounds=len(values),
        )


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One cell of one peer. Without a value there is a reason."""

    value: Spread | None = None
    ratio: Spread | None = None
    """How much better ours is, over the rounds that both have; None for ours itself and for empty
    cells.
    """
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Ours against the best peer of a cell."""

    best: str
    ratio: Spread


class Standings:
    """The whole table. `rows` holds a Standing for each peer by (model, precision, cell)."""

    def __init__(self, records: Iterable[Record]) -> None:
        by_place: dict[Place, dict[str, list[Record]]] = {}
        for record in records:
            place = (record.model, record.precision, record.cell)
            by_place.setdefault(place, {}).setdefault(record.peer, []).append(record)
        self.rows: dict[Place, dict[str, Standing]] = {
            place: {
                peer: _standing(place[2], peers.get(OURS, []), mine, peer)
                for peer, mine in peers.items()
            }
            for place, peers in by_place.items()
        }

    def verdict(self, place: Place) -> Verdict | None:
        """Ours against the best of the others; None when ours or all of the others are missing."""
        rivals = {
            peer: standing
            for peer, standing in self.rows.get(place, {}).items()
            if standing.value is not None and standing.ratio is not None
        }
        if not rivals:
            return None
        best = _best(place[2], rivals)
        ratio = rivals[best].ratio
        assert ratio is not None
        return Verdict(best=best, ratio=ratio)

    def models(self) -> Iterator[str]:
        """Models in the order they were measured."""
        yield from dict.fromkeys(model for model, _, _ in self.rows)


def _standing(cell: str, ours: list[Record], mine: list[Record], peer: str) -> Standing:
    values = _by_round(mine)
    if not values:
        return Standing(
            reason=next((record.reason for record in mine if record.reason), "not measured")
        )
    own = _by_round(ours)
    shared = [number for number in values if number in own] if peer != OURS else []
    ratios = [_ratio(cell, own[number], values[number]) for number in shared]
    return Standing(
        value=Spread.of(list(values.values())), ratio=Spread.of(ratios) if ratios else None
    )


def _by_round(records: list[Record]) -> dict[int, float]:
    """The last value of each round: a cell that failed may have been measured again."""
    return {record.round: record.value for record in records if record.value is not None}


def _ratio(cell: str, ours: float, other: float) -> float:
    return ours / other if CELLS[cell].higher_is_better else other / ours


def _best(cell: str, rivals: dict[str, Standing]) -> str:
    def value(peer: str) -> float:
        spread = rivals[peer].value
        assert spread is not None
        return spread.median

    return max(rivals, key=value) if CELLS[cell].higher_is_better else min(rivals, key=value)
