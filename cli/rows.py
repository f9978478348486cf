"""Data rows: JSONL or CSV with the same columns, `{"input": …, "target": …}` or any named fields.

All bad rows are collected before failing, each named by file and line, so that a file is mended in
one go.
"""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprefix.runtime.contracts.strict_json import is_text, read_value
from edgeprefix.runtime.errors import DataError

_SHOWN_PROBLEMS = 5
_KINDS = {list: "a list", dict: "an object", type(None): "null", str: "half a character (\\ud83d)"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: its fields as text, and where it stands (`line` counts from 1)."""

    fields: dict[str, str]
    """What templates can be filled with."""
    path: Path
    line: int
    content: Mapping[str, Any] = field(default_factory=dict)
    """The row as it was read, with the fields that are no text (null, lists, objects, strings with
    half a character); results keep all of it.
    """

    def __getitem__(self, field: str) -> str:
        return self.fields[field]

    @property
    def place(self) -> str:
        """`file:line`, for messages."""
        return f"{self.path}:{self.line}"

    def problem(self, names: Iterable[str]) -> str | None:
        """Why one of these fields cannot be used as text; None when all can."""
        problems = (_missing(name, self.fields, self.content or self.fields) for name in names)
        return next(filter(None, problems), None)


def read_rows(
    path: str | Path,
    *,
    required: Iterable[str] = ("input", "target"),
    structured: Collection[str] = (),
) -> list[Row]:
    """Reads a .jsonl or .csv file (`.json` lines and `.tsv` too); blank lines are skipped.

    Values may be text, numbers or booleans (kept as text), and in `structured` fields lists or
    objects (kept as JSON). Other values (null, lists, objects, strings with half a character) may
    stand in fields that nobody asks for: they are in `Row.content` alone. Raises DataError when the
    file is missing, holds no row, or has bad rows: not an object, a key or column twice, NaN,
    nesting without end, a required field missing or not text. The message names every bad line up
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
            rows.append(Row(fields=fields, path=path, line=line, content=content))
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
    with reading(path, wanted="a .jsonl or .csv file"):
        yield from reader(path)


@contextlib.contextmanager
def reading(path: Path, *, wanted: str) -> Iterator[None]:
    """Within the block, what keeps a text file from being read becomes a DataError that says what
    to do.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; give {wanted}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL character
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {reason}") from error


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    with open(path, encoding="utf-8-sig") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                yield line, read_value(text)
            except ValueError as error:
                yield line, error


def _csv_rows(path: Path) -> Iterator[tuple[int, Any]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with open(path, encoding="utf-8-sig", newline="") as file:
        # Strict: a quote that is never closed would else swallow the rest of the file
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = next((cells for cells in reader if cells), [])
            if twice := sorted({name for name in header if header.count(name) > 1}):
                yield reader.line_num, ValueError(f"column {twice[0]!r} stands twice in the header")
                return
            for cells in reader:
                if len(cells) > len(header):
                    more = ValueError(f"more columns than the header's {len(header)}")
                    yield reader.line_num, more
                elif cells:
                    yield reader.line_num, dict(zip(header, cells, strict=False))
        except csv.Error as error:
            yield reader.line_num, ValueError(f"{error}; {_remedy(error)}")


def _remedy(error: csv.Error) -> str:
    if "field limit" in str(error):
        return "write rows with texts as long as that as JSONL"
    return "put texts with quotes or line ends in quotes, and double the quotes within"


def _checked(
    content: Any, wanted: tuple[str, ...], structured: Collection[str]
) -> tuple[dict[str, str], str | None]:
    """The row's fields as text, and what is wrong with it (None when nothing is)."""
    if isinstance(content, ValueError):
        return {}, f"not a row: {content}"
    if not isinstance(content, dict):
        return {}, f"a JSON {type(content).__name__}, not an object"
    fields = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in content.items()
        if is_text(key) and _usable(value, structured=key in structured)
    }
    problems = (_missing(name, fields, content) for name in wanted)
    return fields, next(filter(None, problems), None)


def _usable(value: Any, *, structured: bool) -> bool:
    """Whether a field's value can stand in a text."""
    if isinstance(value, list | dict):
        return structured and is_text(json.dumps(value, ensure_ascii=False))
    return is_text(value) or isinstance(value, bool | int | float)


def _missing(name: str, fields: Mapping[str, str], content: Mapping[str, Any]) -> str | None:
    """Why a field cannot be used; None when it can."""
    if name in fields:
        return None
    if name in content:
        value = content[name]
        return f"field {name!r} holds {_KINDS.get(type(value), 'no text')}, expected text"
    there = ", ".join(map(str, content)) or "nothing"
    return f"field {name!r} is missing (the row has: {there})"


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join(repr(name) for name in names) or "named fields"
