"""A time budget: reading it from the command line, and choosing what to measure within it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgeprefix.bench.cells import Cell
from edgeprefix.runtime.errors import RequestError

FEWEST_ROUNDS = 3
"""Fewer say nothing about a number's spread."""
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "": 1.0}


@dataclass(frozen=True)
class Candidate:
    """A cell and what it costs: `round_s` for one round, `setup_s` once. It takes `rounds_most`
    rounds at most.
    """

    cell: Cell
    round_s: float
    setup_s: float = 0.0
    rounds_most: int = 1000

    def seconds(self, rounds: int) -> float:
        """A warming round and the measured ones."""
        return self.setup_s + (1 + min(rounds, self.rounds_most)) * self.round_s


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be measured, in how many rounds, and what there is no time for."""

    rounds: int
    chosen: tuple[Candidate, ...]
    skipped: tuple[Candidate, ...]

    @property
    def seconds(self) -> float:
        """What it should take."""
        return sum(candidate.seconds(self.rounds) for candidate in self.chosen)


def parse_budget(text: str) -> float | None:
    """Seconds of `60s`, `2m`, `1m30s`, `1h` or `90`; None for `none`, which is no limit.

    Raises RequestError for anything else, and for nothing at all.
    """
    if text.strip().lower() == "none":
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([hms]?)", text.strip().lower())
    written = "".join(number + unit for number, unit in parts)
    if not parts or written != text.strip().lower().replace(" ", ""):
        raise RequestError(
            f"budget {text!r} is no time; expected something like 60s, 2m, 1m30s, or none for no "
            "limit"
        )
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds <= 0:
        raise RequestError(
            f"budget {text!r} leaves no time to measure anything; type --budget 30s, or none for "
            "no limit"
        )
    return seconds


def make_plan(candidates: Sequence[Candidate], seconds: float | None, rounds: int) -> Plan:
    """Chooses cells in the order they come (most important first), then as many rounds as there is
    time for.

    A cell that does not fit is skipped; a cheaper one behind it may still fit. `seconds` None is no
    limit.
    """
    if seconds is None:
        return Plan(rounds=rounds, chosen=tuple(candidates), skipped=())
    few = min(FEWEST_ROUNDS, rounds)
    chosen: list[Candidate] = []
    left = seconds
    for candidate in candidates:
        if candidate.seconds(few) <= left:
            chosen.append(candidate)
            left -= candidate.seconds(few)
    most = rounds
    while most > few and sum(candidate.seconds(most) for candidate in chosen) > seconds:
        most -= 1
    skipped = tuple(candidate for candidate in candidates if candidate not in chosen)
    return Plan(rounds=most, chosen=tuple(chosen), skipped=skipped)
