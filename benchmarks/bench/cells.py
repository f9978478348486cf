"""Cells: the things that can be measured, each by a kind and its sizes, and the grid of them that a
bench walks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = {
    "decode": "decoding",
    "prefill": "first token",
    "cold_start": "cold start",
    "prefix": "changing the task",
    "mixed": "mixed batch",
    "instead_of_text": "instead of text",
    "threads": "threads",
}
"""Kinds of cells and what they are called."""

_WORDS = {
    "prompt_tokens": "prompt of {:,}",
    "batch": "batch {}",
    "context": "context {:,}",
    "threads": "{} in use",
    "prefix_positions": "prefix of {:,}",
}


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The sizes to be measured, in tokens, rows and threads."""

    prompts: tuple[int, ...] = (16, 128, 512, 1024)
    batches: tuple[int, ...] = (1, 2, 4, 8)
    contexts: tuple[int, ...] = (128, 512, 1024)
    threads: tuple[int, ...] = ()
    new_tokens: int = 64
    prefix_positions: int = 100


@dataclass(frozen=True)
class Cell:
    """One thing to be measured; sizes that do not apply to its kind are None."""

    kind: str
    prompt_tokens: int | None = None
    batch: int | None = None
    context: int | None = None
    threads: int | None = None
    prefix_positions: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"cell kind {self.kind!r} is unknown; there are {', '.join(KINDS)}")

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes that apply."""
        return {
            name: size
            for name, size in dataclasses.asdict(self).items()
            if name != "kind" and size is not None
        }

    @property
    def label(self) -> str:
        """For people: `decoding, batch 1, context 128`."""
        return ", ".join(
            [KINDS[self.kind], *(_WORDS[name].format(size) for name, size in self.sizes.items())]
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"kind": self.kind} | self.sizes

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cell:
        """Reads `to_json`'s form. Raises TypeError or ValueError."""
        sizes = {key: int(value) for key, value in data.items() if key != "kind"}
        return cls(str(data.get("kind")), **sizes)


def cells_of(grid: Grid) -> list[Cell]:
    """All cells of a grid, the most important first: what a user feels in the first minute, then
    the rest of the map.
    """
    prompt, batch, context = (
        nearest(grid.prompts, 128),
        max(grid.batches),
        nearest(grid.contexts, 128),
    )
    positions = grid.prefix_positions
    first = [
        Cell("decode", batch=min(grid.batches), context=context),
        Cell("prefill", prompt_tokens=prompt),
        Cell("cold_start", prompt_tokens=prompt),
        Cell("prefix", prefix_positions=positions),
        Cell("decode", batch=batch, context=context),
        Cell("mixed", batch=batch, prefix_positions=positions),
        Cell("instead_of_text", prompt_tokens=min(prompt, 16), prefix_positions=positions),
        *(Cell("prefill", prompt_tokens=tokens) for tokens in grid.prompts),
        *(Cell("decode", batch=min(grid.batches), context=tokens) for tokens in grid.contexts),
        *(Cell("threads", threads=count, batch=batch) for count in grid.threads),
        *(
            Cell("decode", batch=rows, context=tokens)
            for tokens in grid.contexts
            for rows in grid.batches
        ),
    ]
    return [cell for cell in dict.fromkeys(first) if cell.kind != "mixed" or (cell.batch or 0) > 1]


def positions_of(cell: Cell, new_tokens: int, prefix_positions: int) -> int:
    """Positions that a cell needs in a row of the cache; `prefix_positions` of the prefix that
    prompts stand behind.
    """
    if cell.kind == "prefill":
        return prefix_positions + (cell.prompt_tokens or 0) + 1
    if cell.kind == "cold_start":
        return prefix_positions + (cell.prompt_tokens or 0) + new_tokens
    if cell.kind == "decode":
        return (cell.context or 0) + new_tokens + slack(cell.batch or 1)
    if cell.kind == "prefix":
        return (cell.prefix_positions or 0) + 1
    return (
        (cell.prefix_positions or 0)
        + (cell.prompt_tokens or 0)
        + new_tokens
        + slack(cell.batch or 1)
        + 128
    )


def slack(batch: int) -> int:
    """New tokens beyond those timed: the rows that join first go on until the last one's time is
    taken.
    """
    return 2 * batch + 4


def nearest(sizes: Sequence[int], wanted: int) -> int:
    """The size that is closest to the one that is usually asked for."""
    return min(sizes, key=lambda size: abs(size - wanted))


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the measuring processes need to open a bundle as a user would."""

    bundle: Path
    prefix: Path | None
    threads: int | None
    providers: tuple[str, ...]
    max_batch: int
    max_length: int
    new_tokens: int
    prefix_positions: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self) | {
            "bundle": str(self.bundle), "prefix": None if self.prefix is None else str(self.prefix)
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Setup:
        """Reads `to_json`'s form."""
        prefix = data["prefix"]
        paths = {"bundle": Path(data["bundle"]), "prefix": None if prefix is None else Path(prefix)}
        return cls(**{**data, **paths, "providers": tuple(data["providers"])})
