"""What is measured in one turn of a peer: sections of cells, each section one loaded size."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.race.shapes import Shape

SHORT, PROMPT, ROWS = 16, 128, 8
SMALL = 256
"""Positions of a row where the prompt is 128 tokens."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of the table."""

    title: str
    unit: str
    higher_is_better: bool = False


CELLS = {
    "load": Cell(title="load", unit="ms"),
    "first_16": Cell(title="first token, 16", unit="ms"),
    "first_128": Cell(title="first token, 128", unit="ms"),
    "decode_128": Cell(title="decode behind 128", unit="tokens/s", higher_is_better=True),
    "peak": Cell(title="peak memory", unit="MB"),
    "first_1024": Cell(title="first token, 1,024", unit="ms"),
    "decode_1024": Cell(title="decode behind 1,024", unit="tokens/s", higher_is_better=True),
    "batch_first": Cell(title="8 × 128: all first tokens", unit="ms"),
    "batch_decode": Cell(title="8 rows: decode behind 128", unit="tokens/s", higher_is_better=True),
    "prompted": Cell(title="1,024 tokens of text + 16", unit="ms"),
    "compiled": Cell(title="compiled 1,024 + 16", unit="ms"),
}
SECTIONS = {
    "short": ("load", "first_16", "first_128", "decode_128", "peak"),
    "long": ("first_1024", "decode_1024"),
    "batch": ("batch_first", "batch_decode"),
    "compiled": ("prompted", "compiled"),
}
ONLY_OURS = ("compiled",)  # sections; no peer keeps a compiled text as a file that it can swap


def sections_of(peer: str) -> tuple[str, ...]:
    """The sections that a peer's turn has."""
    return tuple(name for name in SECTIONS if peer == "ours" or name not in ONLY_OURS)


def long_capacity(shape: Shape) -> int:
    """Positions for the long prompt and what follows it."""
    return shape.long + 64
