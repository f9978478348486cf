"""Data rows: what is read, and how bad rows are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprefix.cli.rows import read_rows
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
    ('{"input": "x", "target": null}', "2: field 'target' holds null, expected text"),
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


DEEP = "[" * 100_000 + "]" * 100_000
ODD = [
    ('{"input": "x", "target": "a\\ud83d"}', r"field 'target' holds half a character"),
    ('{"input": "x", "target": NaN}', "not a row: NaN is no JSON number"),
    ('{"input": "x", "target": -Infinity}', "not a row: -Infinity is no JSON number"),
    ('{"input": "x", "target": 1e999}', "not a row: number 1e999 is too large"),
    (f'{{"input": "x", "target": {"9" * 400}}}', "not a row: a number of 400 digits is too large"),
    ('{"input": "x", "target": "a", "input": "y"}', "not a row: key 'input' stands twice"),
    (f'{{"input": "x", "target": "a", "b": {DEEP}}}', "not a row: nested more than 100 deep"),
    (f'{{"input": "x", "target": {"[" * 101 + "]" * 101}}}', "not a row: nested more than 100 "),
    ('{"input": "x", "target": {"a": 1}}', "field 'target' holds an object, expected text"),
    ('{"input": ["x"], "target": "a"}', "field 'input' holds a list, expected text"),
]


@pytest.mark.parametrize(("line", "message"), ODD, ids=[message for _, message in ODD])
def test_odd_json_is_named_by_line(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "d.jsonl", '{"input": "a", "target": "b"}\n' + line + "\n")
    with pytest.raises(DataError, match=f"d.jsonl:2: {message}"):
        read_rows(path)


CSV = [
    ("input,target,input\na,b,c\n", "1: not a row: column 'input' stands twice in the header"),
    (f"input,target\na,{'x' * 131_073}\n", "2: not a row: field larger than .*as JSONL"),
    ('input,target\n"never closed,b\nc,d\n', "not a row: unexpected end of data; put texts"),
    ("input,target\na\n", r"2: field 'target' is missing \(the row has: input\)"),
]


@pytest.mark.parametrize(("text", "message"), CSV, ids=[message for _, message in CSV])
def test_odd_csv_is_named_by_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=f"(?s)d.csv:.*{message}"):
        read_rows(write(tmp_path / "d.csv", text))


def test_what_no_template_asks_for_may_be_anything_and_is_kept(tmp_path: Path) -> None:
    content = {"input": "a", "n": 3, "none": None, "list": [1], "half": "\ud83d", "\ud83d": "x"}
    path = write(tmp_path / "d.jsonl", json.dumps(content) + "\n")
    [row] = read_rows(path, required=["input"])
    assert row.content == content
    assert row.fields == {"input": "a", "n": "3"}
    assert row.problem(["input", "n"]) is None
    for name, kind in (("none", "null"), ("list", "a list"), ("half", "half a character")):
        assert f"field '{name}' holds {kind}" in str(row.problem(["input", name]))
    assert "field 'more' is missing" in str(row.problem(["more"]))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(["input", "a", "\ud83d"]), values), max_size=4),
    noise=st.binary(max_size=8),
    csv=st.booleans(),
)
def test_any_file_gives_rows_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]], noise: bytes, csv: bool
) -> None:
    """Whatever is in a file: rows whose fields are whole texts and whose content can be written
    again, or one DataError.
    """
    path = tmp_path_factory.getbasetemp() / ("any.csv" if csv else "any.jsonl")
    path.write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode() + noise)
    try:
        found = read_rows(path, required=())
    except DataError:
        return
    for row in found:
        assert all((key + value).encode() is not None for key, value in row.fields.items())
        assert row.fields.keys() <= row.content.keys()
        assert json.loads(json.dumps(row.content)) == row.content


def test_a_path_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: embedded null byte"):
        read_rows("a\0b.jsonl")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_rows(tmp_path)
