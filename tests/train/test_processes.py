"""Two processes on one run come to what one process comes to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rows import record_rows, write_jsonl

from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.train.processes import Processes, join_processes


def test_alone_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = join_processes()
    tensor = torch.ones(2)
    alone.sum_in_place([tensor])
    assert (alone, alone.main, alone.any(True, torch.device("cpu"))) == (
        Processes(0, 1),
        True,
        True,
    )
    assert tensor.tolist() == [1, 1]
    assert [Processes(rank, 3).share([0, 1, 2, 3]) for rank in range(3)] == [[0, 3], [1], [2]]


@pytest.mark.slow
def test_two_processes_equal_one_within_rounding(llama_base: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", record_rows())
    write_jsonl(tmp_path / "validation.jsonl", record_rows(8, start=100))
    program = tmp_path / "go.py"
    program.write_text("from edgeprefix.cli.root import main\nmain()\n")
    for count in (1, 2):
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(count),
            str(program),
            "train",
            "--base",
            str(llama_base),
            "--data",
            str(tmp_path / "train.jsonl"),
            "--validation",
            str(tmp_path / "validation.jsonl"),
            "--task",
            "cities",
            "--out",
            str(tmp_path / f"run{count}"),
            "--length",
            "5",
            "--lr",
            "0.1",
            "--batch-size",
            "7",
            "--precision",
            "fp32",
            "--steps",
            "4",
        ]
        result = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("trained numbers") == 1
    one, two = (Prefix.load(tmp_path / f"run{count}" / "prefix.safetensors") for count in (1, 2))
    for first, second in zip(one.layers, two.layers, strict=True):
        # Adam magnifies the rounding of tiny gradients
        np.testing.assert_allclose(first.key, second.key, atol=2e-3)
        np.testing.assert_allclose(first.value, second.value, atol=2e-3)
    assert json.loads((tmp_path / "run2" / "run.json").read_text())["processes"] == 2
