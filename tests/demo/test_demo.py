"""The whole demo on a tiny base with random weights: every stage for real, too short to learn
anything.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeprefix.base.identity import checkpoint_identity
from edgeprefix.demo.cli import demo_app
from edgeprefix.demo.pipeline import DemoOptions, demo_files, run_demo
from edgeprefix.demo.tasks import TASKS
from edgeprefix.runtime import Prefix
from edgeprefix.runtime.contracts.files import require_replaceable
from edgeprefix.runtime.errors import CheckpointError, OutputError
from tiny import save_checkpoint, tiny_llama

_DEMO = [sys.executable, "-c", "from edgeprefix.demo.cli import demo_app; demo_app()"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny_llama(max_position_embeddings=512)
    return save_checkpoint(model, tmp_path_factory.mktemp("demo") / "tiny-llama")


@dataclass(frozen=True)
class Finished:
    """What a quick `edgeprefix demo` left behind: its folder, and what it showed."""

    folder: Path
    shown: str


@pytest.fixture(scope="module")
def finished(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    out = tmp_path_factory.mktemp("demo") / "report"
    result = CliRunner().invoke(demo_app, ["--out", str(out), "--base", str(base), "--quick"])
    assert result.exit_code == 0, result.output
    return Finished(out, result.output)


@pytest.fixture(scope="module")
def report(finished: Finished) -> dict[str, Any]:
    return json.loads((finished.folder / "report.json").read_text(encoding="utf-8"))


def test_the_report_has_the_promised_fields(report: dict[str, Any]) -> None:
    assert [task["name"] for task in report["tasks"]] == [task.name for task in TASKS]
    for task in report["tasks"]:
        assert task["metric"] in ("bleu", "accuracy")
        assert 0 <= task["base"] <= 100
        assert 0 <= task["prefix"] <= 100
        assert task["prefix_bytes"] > 0
        assert task["training"]["curve"]
        assert task["training"]["validation"]
        assert {tuple(sample) for sample in task["samples"]} == {
            ("input", "base", "prefix", "reference")
        }
    assert 0 < report["swap_ms"]["p50"] <= report["swap_ms"]["p99"]
    assert report["decode_tokens_per_s"] > 0
    assert report["first_token_ms"] > 0
    assert report["max_difference_to_torch"] < 1e-3


def test_a_mixed_batch_gives_what_each_request_gives_alone(report: dict[str, Any]) -> None:
    assert report["mixed_equals_alone"] is True
    assert {row["task"] for row in report["mixed"]["rows"]} == {task.name for task in TASKS}


def test_torch_was_not_in_the_measuring_process(report: dict[str, Any]) -> None:
    assert report["torch_in_measuring_process"] is False


def test_the_page_loads_nothing(
    finished: Finished, assert_stands_alone: Callable[[str], None]
) -> None:
    assert_stands_alone((finished.folder / "report.html").read_text(encoding="utf-8"))


def test_prefix_files_hold_all_that_a_task_needs(
    finished: Finished, report: dict[str, Any], base: Path
) -> None:
    for task, found in zip(TASKS, report["tasks"], strict=True):
        file = finished.folder / "prefixes" / f"{task.name}.safetensors"
        prefix = Prefix.load(file)
        assert (prefix.name, prefix.pack.prompt, prefix.pack.labels) == (
            task.name,
            task.prompt,
            task.labels,
        )
        assert prefix.base.sha256 == checkpoint_identity(base).sha256
        assert file.stat().st_size == found["prefix_bytes"]


def test_commands_name_files_that_are_there(finished: Finished, report: dict[str, Any]) -> None:
    words = [
        word
        for entry in report["commands"]
        for word in entry["command"].split()
        if word.startswith(str(finished.folder))
    ]
    assert len(words) > 4
    assert all(Path(word).exists() for word in words), words


def test_an_existing_folder_is_not_replaced_without_force(finished: Finished, base: Path) -> None:
    before = (finished.folder / "report.json").read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        run_demo(DemoOptions(out=finished.folder, base=str(base), quick=True))
    assert (finished.folder / "report.json").read_bytes() == before


def test_force_replaces_only_what_a_demo_wrote(finished: Finished, tmp_path: Path) -> None:
    require_replaceable(finished.folder, force=True, ours=demo_files)
    mine = finished.folder / "prefixes" / "mine.safetensors"
    mine.write_bytes(b"")
    with pytest.raises(OutputError, match=r"holds prefixes/mine\.safetensors, which"):
        run_demo(DemoOptions(out=finished.folder, base=str(tmp_path), quick=True, force=True))
    mine.unlink()


def test_a_missing_base_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        run_demo(DemoOptions(out=tmp_path / "out", base=str(tmp_path), quick=True))
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_is_one_line_and_leaves_nothing(base: Path, tmp_path: Path) -> None:
    command = [*_DEMO, "--out", str(tmp_path / "out"), "--base", str(base)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(".out.*/runs/trails/metrics.jsonl")):
            assert time.monotonic() < deadline, "training never began"
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert (
        errors.strip()
        .splitlines()[-1]
        .startswith(f"stopped: {tmp_path / 'out'} is as it was before")
    )
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_the_command_shows_a_table_and_what_to_type_next(finished: Finished) -> None:
    for shown in (
        "trails",
        "triage",
        "polite",
        "BLEU",
        "accuracy",
        "tokens/s",
        "report.html",
        "edgeprefix run",
    ):
        assert shown in finished.shown, shown
