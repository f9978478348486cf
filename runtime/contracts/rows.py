"""Data rows: JSONL or CSV with the same columns, `{"input": …, "target": …}` or any named fields.

All bad rows are collected before failing, each named by file and line, so that a file is mended in
one go.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprefix.runtime.errors import DataError

_SHOWN_PROBLEMS = 5


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: its fields as text, and where it stands (`line` counts from 1)."""

    fields: dict[str, str]
    path: Path
    line: int

    def __getitem__(self, field: str) -> str:
        return self.fields[field]

    @property
    def place(self) -> str:
        """`file:line`, for messages."""
        return f"{self.path}:{self.line}"


def read_rows(
    path: str | Path,
    *,
    required: Iterable[str] = ("input", "target"),
    structured: Collection[str] = (),
) -> list[Row]:
    """Reads a .jsonl or .csv file (`.json` lines and `.tsv` too); blank lines are skipped.

    Values may be text, numbers or booleans (kept as text), and in `structured` fields lists or
    objects (kept as JSON). Raises DataError when the file is missing, holds no row, or has bad
    rows: not an object, a required field missing or not text. The message names every bad line up
    to five.
    """
    path = Path(path)
    reader = _csv_rows if path.suffix.lower() in (".csv", ".tsv") else _json_rows
    wanted = tuple(required)
    rows: list[Row] = []
    problems: list[str] = []
    for line, content in _open_and(reader, path):
        fields, problem = _checked(content, wanted, structured)
        if problem is None:
            rows.append(Row(fields=fields, path=path, line=line))
        else:
            problems.append(f"{path}:{line}: {problem}")
    if problems:
        more = len(problems) - _SHOWN_PROBLEMS
        shown = "\n".join(problems[:_SHOWN_PROBLEMS]) + (f"\n… and {more} more" if more > 0 else "")
        raise DataError(
            f"{shown}\nexpected one object a line with {_listed(wanted)}; nothing was used"
        )
    if not rows:
        raise DataError(
            f"{path} holds no rows; expected one JSON object a line with {_listed(wanted)}"
        )
    return rows


_Reader = Callable[[Path], Iterator[tuple[int, Any]]]


def _open_and(reader: _Reader, path: Path) -> Iterator[tuple[int, Any]]:
    try:
        yield from reader(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; give a .jsonl or .csv file") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    with open(path, encoding="utf-8-sig") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                yield line, json.loads(text)
            except ValueError as error:
                yield line, error


def _csv_rows(path: Path) -> Iterator[tuple[int, Any]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        for content in reader:
            if None in content:
                yield (
                    reader.line_num,
                    ValueError(f"more columns than the header's {len(reader.fieldnames or ())}"),
                )
            else:
                yield (
                    reader.line_num,
                    {key: value for key, value in content.items() if value is not None},
                )


def _checked(
    content: Any, wanted: tuple[str, ...], structured: Collection[str]
) -> tuple[dict[str, str], str | None]:
    """The row's fields as text, and what is wrong with it (None when nothing is)."""
    if isinstance(content, ValueError):
        return {}, f"not a row: {content}"
    if not isinstance(content, dict):
        return {}, f"a JSON {type(content).__name__}, not an object"
    fields: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, str):
            fields[key] = value
        elif isinstance(value, bool | int | float) or (
            key in structured and isinstance(value, list | dict)
        ):
            fields[key] = json.dumps(value, ensure_ascii=False)
    for field in wanted:
        if field not in content:
            return (
                {},
                (
                    f"field {field!r} is missing (the row has: "
                    f"{', '.join(map(str, content)) or 'nothing'})"
                ),
            )
        if field not in fields:
            return {}, f"field {field!r} holds {type(content[field]).__name__}, expected text"
    return fields, None


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join(repr(name) for name in names) or "named fields"
