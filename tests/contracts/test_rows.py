"""Data rows: what is read, and how bad rows are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprefix.runtime.contracts.rows import read_rows
from edgeprefix.runtime.errors import DataError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_jsonl(tmp_path: Path) -> None:
    path = write(
        tmp_path / "d.jsonl",
        '{"input": "é", "target": 3}\n\n{"input": "b", "target": true, "more": [1]}\n',
    )
    rows = read_rows(path)
    assert [row.fields for row in rows] == [
        {"input": "é", "target": "3"},
        {"input": "b", "target": "true"},
    ]
    assert rows[1].place == f"{path}:3"


def test_csv_and_tsv_give_the_same_rows(tmp_path: Path) -> None:
    comma = write(tmp_path / "d.csv", 'input,target\n"a, b",c\n"two\nlines",d\n')
    tab = write(tmp_path / "d.tsv", 'input\ttarget\na, b\tc\n"two\nlines"\td\n')
    assert [row.fields for row in read_rows(comma)] == [row.fields for row in read_rows(tab)]


BAD = [
    ("{", "2: not a row: "),
    ("[1]", "2: a JSON list, not an object"),
    ('{"input": "x"}', "2: field 'target' is missing \\(the row has: input\\)"),
    ('{"input": "x", "target": null}', "2: field 'target' holds NoneType, expected text"),
    ("{}", "2: field 'input' is missing \\(the row has: nothing\\)"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_bad_rows_are_named_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "d.jsonl", '{"input": "a", "target": "b"}\n' + line + "\n")
    with pytest.raises(DataError, match=f"d.jsonl:{message}"):
        read_rows(path)


def test_all_bad_rows_are_collected(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", "x\n" * 8)
    with pytest.raises(
        DataError, match=r"(?s)d.jsonl:1: .*d.jsonl:5: .*… and 3 more\nexpected one object a line"
    ):
        read_rows(path)


def test_files_that_hold_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        read_rows(write(tmp_path / "empty.jsonl", "\n"))
    with pytest.raises(DataError, match="does not exist"):
        read_rows(tmp_path / "absent.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"input": "\xe9", "target": "b"}')
    with pytest.raises(DataError, match="not UTF-8 text"):
        read_rows(tmp_path / "latin.jsonl")
    with pytest.raises(DataError, match="more columns than the header's 2"):
        read_rows(write(tmp_path / "d.csv", "input,target\na,b,c\n"))
