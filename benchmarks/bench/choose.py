"""From what the user asked for to the cells that this bundle can do, and the sizes that the engine
must be opened with.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeprefix.bench.cells import Cell, Grid, cells_of, positions_of
from edgeprefix.runtime.errors import RequestError


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Cells in order of importance, those that do not fit the base with the reason, and the
    positions they need.
    """

    cells: tuple[Cell, ...]
    unfit: tuple[tuple[str, str], ...]
    max_length: int


def choose(grid: Grid, *, max_positions: int, behind_prefix: bool) -> Choice:
    """Sorts out what needs more positions than the base has. Raises RequestError when nothing is
    left.
    """
    positions = grid.prefix_positions if behind_prefix else 0
    need = {cell: positions_of(cell, grid.new_tokens, positions) for cell in cells_of(grid)}
    fitting = tuple(cell for cell in need if need[cell] <= max_positions)
    if not any(cell.kind in ("decode", "prefill") for cell in fitting):
        raise RequestError(
            f"nothing fits the base's {max_positions} positions: prompts {_list(grid.prompts)}, "
            f"contexts {_list(grid.contexts)}, "
            f"{grid.new_tokens} new tokens; give smaller --prompt-tokens, --contexts or "
            "--new-tokens"
        )
    unfit = tuple(
        (cell.label, f"needs more positions than the base's {max_positions:,}")
        for cell in need
        if cell not in fitting
    )
    return Choice(cells=fitting, unfit=unfit, max_length=max(need[cell] for cell in fitting))


def thread_counts(cores: int) -> tuple[int, ...]:
    """1, 2, 4, … and all cores; nothing to compare on a single one."""
    counts = {1 << power for power in range(cores.bit_length()) if 1 << power <= cores} | {cores}
    return tuple(sorted(counts)) if cores > 1 else ()


def parse_sizes(text: str, option: str) -> tuple[int, ...]:
    """Sizes of `16,128,1024`, in order, once each. Raises RequestError."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise RequestError(
            f"{option} {text!r}: expected positive numbers with commas between, such as 16,128,1024"
        )
    return tuple(sorted({int(part) for part in parts}))


def _list(sizes: tuple[int, ...]) -> str:
    return ", ".join(map(str, sizes))
