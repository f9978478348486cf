"""Rows from files, memory and Hugging Face data sets end as the same rows."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprefix.runtime.errors import DataError
from edgeprefix.train.sources import read_source

ROWS = [{"text": "I lost my card", "label": 1}, {"text": "hello", "label": 0}]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["chat", "card"])}
    )
    train = datasets.Dataset.from_list(ROWS, features=features)
    datasets.DatasetDict({"train": train, "test": train.select([1])}).save_to_disk(
        tmp_path / "saved"
    )
    return tmp_path / "saved"


def test_a_saved_data_set_gives_its_train_split_with_labels_as_names(saved: Path) -> None:
    rows = read_source(str(saved), fields=["text"], target="label")
    assert [(row["text"], row["target"]) for row in rows] == [
        ("I lost my card", "card"),
        ("hello", "chat"),
    ]
    assert rows[1].place == f"{saved}:2"


def test_a_split_is_named_behind_a_colon(saved: Path) -> None:
    rows = read_source(f"{saved}:test", fields=["text"], target="label")
    assert [row["text"] for row in rows] == ["hello"]


def test_a_folder_of_parquet_is_a_data_set_too(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "parquet"
    folder.mkdir()
    datasets.load_from_disk(str(saved))["train"].to_parquet(folder / "train-00000-of-00001.parquet")
    assert [row["text"] for row in read_source(str(folder), fields=["text"], target="label")] == [
        "I lost my card",
        "hello",
    ]


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("{saved}:dev", ["text"], r"has no split 'dev'; it has train, test; write NAME:SPLIT"),
        ("{saved}", ["question"], r"has no column 'question' \(it has: text, label\)"),
        ("{saved}/nothing", ["text"], r"is neither a file nor a data set that can be had"),
    ],
)
def test_what_is_not_there_is_named(
    saved: Path, name: str, fields: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_source(name.format(saved=saved), fields=fields, target="label")


def test_files_and_rows_in_memory_take_another_target_field(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label\nhello,chat\n", encoding="utf-8")
    for source in (file, [{"text": "hello", "label": "chat"}]):
        (row,) = read_source(source, fields=["text"], target="label")
        assert row["target"] == "chat"


def test_a_missing_file_is_called_a_file() -> None:
    with pytest.raises(
        DataError, match=r"nowhere\.jsonl does not exist; give a \.jsonl or \.csv file"
    ):
        read_source("nowhere.jsonl", fields=["input"])


def labelled(path: Path, rows: list[dict[str, object]], *, label: bool = True) -> str:
    target = datasets.ClassLabel(names=["chat", "card"]) if label else datasets.Value("string")
    features = datasets.Features({"text": datasets.Value("string"), "label": target})
    datasets.Dataset.from_list(rows, features=features).save_to_disk(path)
    return str(path)


def test_an_unlabelled_row_of_a_data_set_is_refused(tmp_path: Path) -> None:
    """Data sets mark test rows without a label by -1, and missing values by nothing."""
    rows = [{"text": "hello", "label": label} for label in (0, -1, 1, None, -1)]
    with pytest.raises(DataError) as error:
        read_source(labelled(tmp_path / "rows", rows), fields=["text"], target="label")
    lines = str(error.value).splitlines()
    assert [line.partition(": ")[0] for line in lines[:-1]] == [
        f"{tmp_path / 'rows'}:{line}" for line in (2, 4, 5)
    ]
    assert "field 'label' holds -1, which is none of its 2 class labels" in lines[0]
    assert "nothing was used" in lines[-1]


def test_a_missing_text_of_a_data_set_is_refused(tmp_path: Path) -> None:
    rows = [{"text": "hello", "label": None}, {"text": None, "label": "card"}]
    with pytest.raises(
        DataError, match=r"rows:1: field 'label' holds NoneType.*\n.*rows:2: .*'text'"
    ):
        read_source(labelled(tmp_path / "rows", rows, label=False), fields=["text"], target="label")


NO_TEXT = st.one_of(
    st.none(),
    st.sampled_from([float("nan"), float("inf"), float("-inf")]),
    st.lists(st.integers()),
    st.dictionaries(st.text(), st.integers()),
    st.binary(),
)
TEXT = st.one_of(
    st.text(), st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)
)


@given(st.lists(st.tuples(TEXT | NO_TEXT, TEXT | NO_TEXT), min_size=1, max_size=8))
def test_every_row_has_text_or_is_named(values: list[tuple[object, object]]) -> None:
    rows = [{"input": text, "target": target} for text, target in values]
    bad = [
        f"row {line}: field {field!r}"
        for line, row in enumerate(rows, start=1)
        for field, value in row.items()
        if not isinstance(value, str | int) and (not isinstance(value, float) or value - value != 0)
    ]
    if bad:
        with pytest.raises(DataError) as error:
            read_source(rows, fields=["input"])  # type: ignore[arg-type]
        assert all(place in str(error.value) for place in bad[:5])
    else:
        found = read_source(rows, fields=["input"])  # type: ignore[arg-type]
        for row, (text, target) in zip(found, values, strict=True):
            for got, given_ in zip((row["input"], row["target"]), (text, target), strict=True):
                assert got == (given_ if isinstance(given_, str) else json.dumps(given_))
