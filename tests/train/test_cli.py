"""The command line's own doings; errors and resuming are in test_stops.py."""

from __future__ import annotations

import json
from pathlib import Path

from rows import label_rows, write_jsonl
from typer.testing import CliRunner

from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.train.cli import train_app


def test_options_reach_the_prefix_file_and_a_summary_ends_it(
    llama_base: Path, tmp_path: Path
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", label_rows())
    options = [
        "--base",
        llama_base,
        "--data",
        data,
        "--task",
        "help",
        "--out",
        tmp_path / "run",
        "--labels",
        "yes, no",
        "--prompt",
        "{input}\\n->",
        "--length",
        "4",
        "--steps",
        "6",
        "--lr",
        "0.2",
        "--precision",
        "fp32",
        "--stop",
        "##",
        "--licence",
        "CC0-1.0",
    ]
    result = CliRunner().invoke(train_app, [str(option) for option in options])
    assert result.exit_code == 0, result.output
    for part in (
        "validation accuracy",
        "base alone",
        "trained numbers",
        "set apart from the training data",
    ):
        assert part in result.output
    prefix = Prefix.load(tmp_path / "run" / "prefix.safetensors")
    assert (prefix.pack.prompt, prefix.pack.labels, prefix.pack.stop) == (
        "{input}\n->",
        ("yes", "no"),
        ("##",),
    )
    assert (prefix.length, prefix.pack.licence) == (4, "CC0-1.0")
    assert (
        json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["plan"]["metric"]
        == "accuracy"
    )


def test_wrong_usage_exits_with_2() -> None:
    missing = CliRunner().invoke(train_app, ["--base", "b"])
    assert missing.exit_code == 2
    unknown = CliRunner().invoke(train_app, ["--learning-rate", "1"])
    assert unknown.exit_code == 2
