"""Small data sets that a random tiny base can learn something from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

NAMES = ["Ann", "Bob", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana", "Ida", "Jon", "Kim", "Lea"]
CITIES = ["Rome", "Oslo", "Lima", "Bern", "Cairo"]


def record_rows(count: int = 40, *, start: int = 0) -> list[dict[str, str]]:
    """Record → sentence."""
    rows = []
    for index in range(start, start + count):
        name, city = NAMES[index % len(NAMES)], CITIES[index % len(CITIES)]
        rows.append(
            {"input": f"name: {name} {index} | city: {city}", "target": f"{name} lives in {city}."}
        )
    return rows


def label_rows(count: int = 40, *, start: int = 0) -> list[dict[str, str]]:
    """Text → yes or no, told apart by one word."""
    return [
        {
            "input": f"{'please help' if index % 2 else 'the river'} {index}",
            "target": "yes" if index % 2 else "no",
        }
        for index in range(start, start + count)
    ]


def write_jsonl(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """Writes rows as JSON lines; gives the path back."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
