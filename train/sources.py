"""Where training rows come from: a JSONL or CSV file, rows in memory, or a Hugging Face data set
(local folder or hub).

A data set is named `FOLDER` or `ORG/NAME`, with `:SPLIT` and `@CONFIGURATION` behind it where there
are several: `banking77`, `glue@sst2:train`, `saved_folder:validation`. Class labels come as their
names. Whatever it was, it ends as `Row`s whose field "target" is what is to be learnt.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from edgeprefix.cli.rows import Row, read_rows
from edgeprefix.runtime.errors import DataError, MissingExtraError

DataSource = str | Path | Sequence[Mapping[str, str]]
"""A JSONL or CSV file, a Hugging Face data set, or rows with their fields."""

TARGET = "target"
_SHOWN_PROBLEMS = 5
_FILES = (".jsonl", ".json", ".csv", ".tsv")


def read_source(
    source: DataSource, *, fields: Iterable[str], target: str = TARGET, what: str = "row"
) -> list[Row]:
    """Rows with `fields` and, as "target", what stands in their field `target`.

    Raises DataError that names file (or data set) and line of what is missing or cannot be read,
    MissingExtraError when a data set is asked for without the package that reads it.
    """
    required = [*fields, target]
    if not isinstance(source, str | Path):
        rows = _in_memory(source, required, what)
    elif Path(source).is_file() or Path(source).suffix.lower() in _FILES:
        rows = read_rows(source, required=required)
    else:
        rows = _from_dataset(str(source), required)
    if target == TARGET:
        return rows
    return [dataclasses.replace(row, fields=row.fields | {TARGET: row[target]}) for row in rows]


def _in_memory(
    source: Sequence[Mapping[str, Any]], required: Sequence[str], what: str
) -> list[Row]:
    missing = [
        f"{what} {line} has no {field!r} (it has: {', '.join(map(str, fields)) or 'nothing'})"
        for line, fields in enumerate(source, start=1)
        for field in required
        if field not in fields
    ]
    refuse_rows(missing)
    if not source:
        raise DataError(f"no {what} was given; expected rows with {', '.join(required)}")
    return _as_text(source, required, Path(f"<{what}s>"), before=f"{what} ")


def _from_dataset(name: str, required: Sequence[str]) -> list[Row]:
    where, configuration, split = _parts(name)
    found = _open_dataset(name, where, configuration, split)
    missing = [field for field in required if field not in found.column_names]
    if missing:
        raise DataError(
            f"data set {name} has no column {missing[0]!r} (it has: "
            f"{', '.join(found.column_names)}); "
            "name the template's fields after its columns (--prompt), and the wanted one with "
            "--target"
        )
    names = {
        column: found.features[column].names
        for column in required
        if hasattr(found.features[column], "names")
    }
    return _as_text(found, required, Path(name), before=f"{name}:", names=names)


def _as_text(
    source: Iterable[Mapping[str, Any]],
    required: Sequence[str],
    path: Path,
    *,
    before: str,
    names: Mapping[str, Sequence[str]] | None = None,
) -> list[Row]:
    """Rows with their fields as text, class labels by `names`. Raises DataError that names the
    rows (by their number behind `before`) whose required fields have no text.
    """
    rows, problems = [], []
    for line, content in enumerate(source, start=1):
        fields = {}
        for field in required:
            text = _text(content[field], (names or {}).get(field))
            if text is None:
                found = _said(content[field], field, names)
                problems.append(f"{before}{line}: field {field!r} holds {found}")
            else:
                fields[field] = text
        rows.append(Row(fields=fields, path=path, line=line))
    refuse_rows(problems)
    return rows


def refuse_rows(problems: Sequence[str]) -> None:
    """Raises DataError with the first few of these lines, if there are any."""
    if problems:
        more = len(problems) - _SHOWN_PROBLEMS
        shown = "\n".join(problems[:_SHOWN_PROBLEMS])
        rest = f"\n… and {more} more" if more > 0 else ""
        raise DataError(f"{shown}{rest}\nmend these rows or leave them out; nothing was used")


def _open_dataset(name: str, where: str, configuration: str | None, split: str | None) -> Any:
    """One split, as a datasets.Dataset."""
    datasets = _library()
    saved = Path(where).is_dir() and any(
        Path(where, mark).exists() for mark in ("state.json", "dataset_dict.json")
    )
    try:
        found = (
            datasets.load_from_disk(where) if saved else datasets.load_dataset(where, configuration)
        )
    except (
        Exception
    ) as error:  # loaders raise what they like: from the hub, from pyarrow, from a script
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(
            f"{name} is neither a file nor a data set that can be had: {reason}; give a "
            f"{' or '.join(_FILES[::2])} file, "
            "or a data set as NAME[@CONFIGURATION][:SPLIT]"
        ) from error
    if not hasattr(found, "keys"):
        return found if split is None else _no_split(name, split, ["(only one)"])
    chosen = split or "train"
    return found[chosen] if chosen in found else _no_split(name, chosen, list(found))


def _no_split(name: str, split: str, there: Sequence[str]) -> NoReturn:
    raise DataError(
        f"data set {name} has no split {split!r}; it has {', '.join(there)}; write NAME:SPLIT"
    )


def _library() -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "Hugging Face data sets need the package datasets; type: pip install "
            "'edgeprefix[datasets]'"
        ) from error
    datasets.disable_progress_bars()
    return datasets


def _parts(name: str) -> tuple[str, str | None, str | None]:
    """Name, configuration, split."""
    where, _, split = name.partition(":") if not Path(name).exists() else (name, "", "")
    where, _, configuration = where.partition("@")
    return where, configuration or None, split or None


def _text(value: Any, names: Sequence[str] | None) -> str | None:
    """A field's value as text: text, numbers and truth values as in JSON, a class label by its
    name; None for what has none (nothing, NaN, a list, an unlabelled row's -1).
    """
    if names is not None:
        known = isinstance(value, int) and 0 <= value < len(names)
        return str(names[value]) if known else None
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    return None


def _said(value: Any, field: str, names: Mapping[str, Sequence[str]] | None) -> str:
    """What a refused value is, and what was expected."""
    if names and field in names:
        return f"{value!r}, which is none of its {len(names[field])} class labels"
    if isinstance(value, float):
        return f"{value}, which is no number; expected text"
    return f"{type(value).__name__}, expected text"
