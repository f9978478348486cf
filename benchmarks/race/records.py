"""The race's memory: a file of JSON lines to which every measured cell is appended at once, so that
a race can go on later.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Record:
    """One cell of one turn; either `value` (its unit is the cell's) or `reason` is set."""

    round: int
    peer: str
    model: str
    precision: str
    cell: str = ""
    value: float | None = None
    samples: tuple[float, ...] = ()
    tokens: tuple[tuple[int, ...], ...] = ()
    """First tokens that came out, by which peers can be compared."""
    reason: str | None = None

    def of(
        self,
        cell: str,
        *,
        value: float | None = None,
        samples: Iterable[float] = (),
        tokens: Iterable[Iterable[int]] = (),
        reason: str | None = None,
    ) -> Record:
        """This turn's record of a cell."""
        return dataclasses.replace(
            self, cell=cell, value=value, samples=tuple(round(sample, 4) for sample in samples),
            tokens=tuple(tuple(row) for row in tokens), reason=reason,
        )  # fmt: skip


class RecordFile:
    """The records of a race, and what was said about the machine when it was started or went on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, kind: str, content: Record | dict[str, Any]) -> None:
        """Writes a line and makes sure that it is on the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        plain = asdict(content) if isinstance(content, Record) else content
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **plain}) + "\n")
            file.flush()

    def records(self) -> list[Record]:
        """All cells, in the order they were measured."""
        lines = (line for line in self._lines() if line["kind"] == "cell")
        return [_record(line) for line in lines]

    def sessions(self) -> list[dict[str, Any]]:
        """Machine card, versions and command of every start."""
        return [line for line in self._lines() if line["kind"] == "session"]

    def turns(self) -> list[dict[str, Any]]:
        """How long each turn took, and how many cores others kept busy meanwhile."""
        shown = ("round", "peer", "model", "precision", "seconds", "others_cores")
        return [
            {name: line[name] for name in shown} for line in self._lines() if line["kind"] == "turn"
        ]

    def _lines(self) -> Iterator[dict[str, Any]]:
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                yield json.loads(line)


def _record(line: dict[str, Any]) -> Record:
    fields = {name: value for name, value in line.items() if name != "kind"}
    return Record(
        **fields | {"samples": tuple(line["samples"]), "tokens": tuple(map(tuple, line["tokens"]))}
    )
