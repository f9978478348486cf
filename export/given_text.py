"""Text that a user gives for judging a bundle: a text file, or rows of a task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeprefix.base import Base
from edgeprefix.cli.rows import read_rows, reading
from edgeprefix.runtime.errors import DataError

Ids = npt.NDArray[np.int64]

WINDOW = 512
"""Tokens that are read together, the begin token in."""
LARGEST = 2048
"""Tokens of all texts together that are read: torch takes half a minute for them on two cores."""

_ROWS = (".jsonl", ".json", ".csv", ".tsv")


def given_texts(path: str | Path, base: Base) -> tuple[Ids, ...]:
    """The first LARGEST tokens of a file, as texts [S] that begin with the base's begin token.

    A text file is cut into windows; of rows (JSONL or CSV) each is a text of its own, its fields
    one below the other, cut off at a window. Raises DataError when the file cannot be read or holds
    no text, or when the base has no tokenizer.
    """
    path = Path(path)
    if base.tokenizer is None:
        raise DataError(f"{path} cannot be read as tokens: {base.identity.name} has no tokenizer")
    texts: list[Ids] = []
    for text in _texts(path):
        left = LARGEST - sum(map(len, texts))
        windows = cut(text, base, largest=left)
        texts += windows[:1] if path.suffix in _ROWS else windows
    if not texts:
        raise DataError(f"{path} holds no text; give a text file, or rows (JSONL or CSV)")
    return tuple(texts)


def cut(text: str, base: Base, *, window: int = WINDOW, largest: int = LARGEST) -> list[Ids]:
    """The first `largest` tokens of a text in windows [S], the begin token in front of each."""
    assert base.tokenizer is not None  # the caller has seen to it
    opening = [] if base.begin_id is None else [base.begin_id]
    size = min(window, base.max_positions) - len(opening)
    ids = base.tokenizer.encode(text, add_special_tokens=False).ids[: max(0, largest)]
    windows = [opening + ids[start : start + size] for start in range(0, len(ids), size)]
    # A token alone follows nothing
    return [np.array(window, np.int64) for window in windows if len(window) > 1]


def read_text(path: Path) -> str:
    """A text file's content. Raises DataError."""
    with reading(path, wanted="a text file, or rows"):
        return path.read_text(encoding="utf-8")


def row_texts(path: Path) -> Iterator[str]:
    """The text of each row of a file (JSONL or CSV): its fields, one below the other. Raises
    DataError.
    """
    return ("\n".join(row.fields.values()) for row in read_rows(path, required=()))


def _texts(path: Path) -> Iterator[str]:
    if path.suffix in _ROWS:
        yield from row_texts(path)
    else:
        yield read_text(path)
