"""The data sets of a cell, cut to its rows, and the held-out rows that every method is
measured on.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cells import METRIC, Cell

SHARED = Path(__file__).parents[3] / "shared" / "data"
PROMPT = "{input}\n"
HELD_OUT = {"e2e": 128, "clinc150_domain": 500, "banking77": 200}
PROSE_TOKENS = 20_000


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Training rows, held-out rows, and the labels of a classification task."""

    train: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    labels: tuple[str, ...]


def missing(data: str) -> str | None:
    """Why a data set cannot be measured; None when it is there."""
    file = SHARED / data / "train.jsonl"
    return None if file.is_file() else f"{file} is not there"


def rows_of(cell: Cell, split: str = "test") -> Rows:
    """A seeded choice of training rows, and the same held-out rows for every method and seed.

    Methods are judged on the test rows; their settings are chosen on the split "validation". E2E is
    held out by distinct meaning representation, with all its references as rows.
    """
    train = _read(cell.data, "train")
    labels = (
        tuple(sorted({row["target"] for row in train})) if METRIC[cell.data] == "accuracy" else ()
    )
    if cell.rows:
        train = random.Random(f"{cell.data}/{cell.seed}").sample(train, cell.rows)
    return Rows(
        train=[_plain(row) for row in train], held_out=_held_out(cell, split), labels=labels
    )


def _held_out(cell: Cell, split: str) -> list[dict[str, Any]]:
    rows = _read(cell.data, split)
    order = sorted({row["input"] for row in rows})
    chosen = set(
        random.Random(0).sample(order, min(cell.held_out or HELD_OUT[cell.data], len(order)))
    )
    return [_plain(row) for row in rows if row["input"] in chosen]


def prose() -> str | None:
    """General text that no method was trained on."""
    file = SHARED / "corpus_en" / "validation.txt"
    return file.read_text(encoding="utf-8")[: PROSE_TOKENS * 8] if file.is_file() else None


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {"input": row["input"], "target": row["target"]}


def _read(data: str, split: str) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for line in (SHARED / data / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
