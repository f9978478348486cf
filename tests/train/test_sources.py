"""Rows from files, memory and Hugging Face data sets end as the same rows."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

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
