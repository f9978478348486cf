"""What the three tasks share: rows in three parts that have no name, phrase or message in common.

Every entity (a made-up name, an object, a turn of phrase) belongs to exactly one part, which a hash
of its own text decides. A generator draws a row for a part from that part's entities only, so a
test row is never a training row with another word order: its names, objects or phrases were never
seen. The seed chooses the rows, never the cut, so the test rows of one seed are new to a prefix
trained with any other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal, TypeVar

from edgeprefix.runtime.contracts.files import write_atomic

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")

_SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
_TRIES = 1000  # drawing a row that is not there yet

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DemoRow:
    """One input with its accepted answers, the first of which is the target to learn."""

    input: str
    references: tuple[str, ...]
    entities: tuple[str, ...]
    """The names, objects or phrases of this row that must stay within its part; not written to the
    file.
    """

    def to_json(self) -> dict[str, object]:
        """`input` and `target`, and `references` where there are several."""
        row: dict[str, object] = {"input": self.input, "target": self.references[0]}
        return row | ({"references": list(self.references)} if len(self.references) > 1 else {})


@dataclass(frozen=True, kw_only=True)
class DemoTask:
    """A generator of rows and what the pipeline must know about the task."""

    name: str
    title: str
    """What it does, for people."""
    metric: Literal["bleu", "accuracy"]
    draw: Callable[[Random, Part], DemoRow]
    labels: tuple[str, ...] = ()
    prompt: str = "{input}\n"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many rows each part has."""

    train: int
    validation: int
    test: int


def make_rows(task: DemoTask, sizes: Sizes, *, seed: int) -> dict[Part, list[DemoRow]]:
    """Draws every part's rows, each input once. The same seed gives the same rows.

    Raises ValueError when the generator has too little variety for the sizes asked.
    """
    return {part: _draw_part(task, part, getattr(sizes, part), seed) for part in PARTS}


def write_rows(path: Path, rows: Sequence[DemoRow]) -> None:
    """Writes rows as JSONL."""
    lines = (json.dumps(row.to_json(), ensure_ascii=False) for row in rows)
    write_atomic(path, ("\n".join(lines) + "\n").encode())


def part_of(entity: str) -> Part:
    """The one part that an entity belongs to."""
    place = int.from_bytes(hashlib.sha256(entity.encode()).digest()[:4]) / 2**32
    if place < _SHARES["train"]:
        return "train"
    return "validation" if place < _SHARES["train"] + _SHARES["validation"] else "test"


def cut(entities: Sequence[T], part: Part) -> tuple[T, ...]:
    """One part's share of a fixed list, in the list's order. Each part gets its share exactly,
    whatever the hashes.
    """
    ranked = sorted(
        range(len(entities)),
        key=lambda index: hashlib.sha256(str(entities[index]).encode()).digest(),
    )
    first = round(len(ranked) * _SHARES["train"])
    last = round(len(ranked) * (_SHARES["train"] + _SHARES["validation"]))
    chosen = {"train": ranked[:first], "validation": ranked[first:last], "test": ranked[last:]}[
        part
    ]
    return tuple(entities[index] for index in sorted(chosen))


def draw_until(draw: Callable[[Random], str], rng: Random, part: Part) -> str:
    """Draws from an unbounded source of entities until one belongs to `part`."""
    for _ in range(_TRIES):
        entity = draw(rng)
        if part_of(entity) == part:
            return entity
    raise ValueError(
        f"no entity of the {part} part in {_TRIES} tries: the source has too little variety"
    )


def _draw_part(task: DemoTask, part: Part, size: int, seed: int) -> list[DemoRow]:
    rng = Random(f"{task.name}/{part}/{seed}")
    rows: dict[str, DemoRow] = {}
    for _ in range(size * _TRIES):
        if len(rows) == size:
            break
        row = task.draw(rng, part)
        rows.setdefault(row.input, row)
    if len(rows) < size:
        raise ValueError(
            f"{task.name} gives only {len(rows)} different {part} rows, asked for {size}"
        )
    return list(rows.values())
