"""The command line's own doings; errors and resuming are in test_stops.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rows import label_rows, write_jsonl
from typer.testing import CliRunner

from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.errors import TrainingError
from edgeprefix.train import Progress, load_base
from edgeprefix.train.cli import train_app
from edgeprefix.train.devices import choose_device
from edgeprefix.train.progress_lines import ProgressLines


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
        "--stop",
        "\\n",
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
        r"prompt '{input}\n->', stop '##', stop '\n'",
        "step 1/6 · loss ",
        "step 6/6 · loss ",
        "tokens/s · 0:00 left",
    ):
        assert part in result.output
    prefix = Prefix.load(tmp_path / "run" / "prefix.safetensors")
    assert (prefix.pack.prompt, prefix.pack.labels, prefix.pack.stop) == (
        "{input}\n->",
        ("yes", "no"),
        ("##", "\n"),
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chat", "--prompt", "{input}"], "leave --prompt out"),
        (["--system", "Be short."], "--system goes with --chat"),
        (["--teacher-text", "a", "--teacher-file", "b"], "not both"),
    ],
)
def test_options_that_contradict_each_other_are_wrong_usage(
    tmp_path: Path, options: list[str], message: str
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", label_rows())
    needed = ["--base", "b", "--data", str(data), "--task", "t", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(train_app, [*needed, *options])
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu:3", "meta", "", "cuda:x"])
def test_a_device_that_is_not_there_is_answered_by_a_list(llama_base: Path, device: str) -> None:
    with pytest.raises(TrainingError, match=rf"device '{device}' is not on .* choose auto, cpu"):
        load_base(llama_base, device=device)


def test_devices_that_are_there_are_taken() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def step(number: int, *, validated: int | None) -> Progress:
    return Progress(
        step=number,
        steps=100,
        loss=1.5,
        tokens_per_s=1234.0,
        seconds_left=65.0,
        validation_loss=None if validated is None else 1.25,
        metric_name="loss",
        metric=None if validated is None else 1.25,
        validated_step=validated,
        best_step=validated or 0,
    )


def test_lines_come_now_and_then_and_at_every_validation() -> None:
    said: list[str] = []
    now = 0.0
    lines = ProgressLines(said.append, clock=lambda: now)
    for number in range(1, 101):
        now += 1.0
        lines.step(step(number, validated=number // 40 * 40 or None))
    assert [int(line.split()[1].split("/")[0]) for line in said] == [
        1, 11, 21, 31, 40, 50, 60, 70, 80, 90, 100,
    ]  # fmt: skip
    assert said[0] == "step 1/100 · loss 1.500 · 1,234 tokens/s · 1:05 left"
    assert said[4] == (
        "step 40/100 · loss 1.500 · validation loss 1.250 (best at 40) · 1,234 tokens/s · 1:05 left"
    )


def test_the_teachers_answers_are_told_now_and_then() -> None:
    said: list[str] = []
    now = 0.0
    lines = ProgressLines(said.append, clock=lambda: now)
    for done in range(16, 1009, 16):
        now += 4.0
        lines.teacher(min(done, 1000), 1000)
    assert said[0] == "teacher 16/1000"
    assert said[-1] == "teacher 1000/1000"
    assert 18 <= len(said) <= 23
