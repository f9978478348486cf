"""Formats chosen group by group: the least damage for a number of bytes, or the fewest bytes for a
damage.

Damages of groups add up, nearly: each is small, and their errors have nothing to do with each
other. So every step from one format of a group to a better one has a price, damage saved per byte,
and the steps are bought in the order of their prices. A larger budget buys what a smaller one buys,
and more: quality never falls with size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgeprefix.base.rounding import WeightFormat


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A format that a group may have."""

    format: WeightFormat
    bytes: int
    damage: float
    """Nats by which it moves the next token's distribution (mean KL)."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An offer for each group, in the order of the groups."""

    offers: tuple[Offer, ...]

    @property
    def bytes(self) -> int:
        """Of all groups."""
        return sum(offer.bytes for offer in self.offers)

    @property
    def damage(self) -> float:
        """Of all groups, nats."""
        return sum(offer.damage for offer in self.offers)


def choices(groups: Sequence[Sequence[Offer]]) -> list[Choice]:
    """Every sensible choice, from the smallest to the best; each costs more than the one before and
    damages less.
    """
    ladders = [_ladder(offers) for offers in groups]
    upgrades = [
        (_price(ladder[rung], ladder[rung + 1]), group, rung + 1)
        for group, ladder in enumerate(ladders)
        for rung in range(len(ladder) - 1)
    ]
    # prices of one ladder fall from rung to rung, so that none is passed over
    upgrades.sort(key=lambda upgrade: (-upgrade[0], upgrade[1], upgrade[2]))
    rungs = [0] * len(ladders)
    found = [_at(ladders, rungs)]
    for _, group, rung in upgrades:
        rungs[group] = rung
        found.append(_at(ladders, rungs))
    return found


def within_bytes(found: Sequence[Choice], limit: int) -> Choice | None:
    """The best choice of at most `limit` bytes, None when the smallest has more."""
    fitting = [choice for choice in found if choice.bytes <= limit]
    return fitting[-1] if fitting else None


def within_damage(found: Sequence[Choice], limit: float) -> Choice | None:
    """The smallest choice of at most `limit` nats, None when the best has more."""
    return next((choice for choice in found if choice.damage <= limit), None)


def _ladder(offers: Iterable[Offer]) -> list[Offer]:
    """The offers that no mixture of two others beats: the lower hull of damage over bytes."""
    rungs: list[Offer] = []
    for offer in sorted(offers, key=lambda offer: (offer.bytes, offer.damage)):
        if rungs and offer.damage >= rungs[-1].damage:
            continue
        while len(rungs) > 1 and _price(rungs[-1], offer) >= _price(rungs[-2], rungs[-1]):
            rungs.pop()
        rungs.append(offer)
    return rungs


def _price(worse: Offer, better: Offer) -> float:
    return (worse.damage - better.damage) / (better.bytes - worse.bytes)


def _at(ladders: Sequence[Sequence[Offer]], rungs: Sequence[int]) -> Choice:
    return Choice(offers=tuple(ladder[rung] for ladder, rung in zip(ladders, rungs, strict=True)))
