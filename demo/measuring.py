"""The parent's side of measuring: starts a process without torch, follows its progress, and scores
what it generated.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprefix.demo.measure import Job
from edgeprefix.demo.stages import Advance
from edgeprefix.demo.tasks import DemoRow, DemoTask
from edgeprefix.runtime.errors import EdgePrefixError
from edgeprefix.train.evaluate import bleu


def run_measuring(job: Job, advance: Advance) -> dict[str, Any]:
    """Measures one bundle in a process of its own. Raises EdgePrefixError with the process' last
    words when it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        job_file, result_file, errors_file = (
            Path(folder) / name for name in ("job.json", "result.json", "errors.txt")
        )
        job_file.write_text(json.dumps(job.to_json()), encoding="utf-8")
        command = [sys.executable, "-m", "edgeprefix.demo.measure", str(job_file), str(result_file)]
        with (
            errors_file.open("w") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            try:
                _follow(process, advance)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            words = errors_file.read_text(errors="replace").strip().splitlines()
            last = words[-1] if words else f"exit code {process.returncode}"
            raise EdgePrefixError(f"the measuring process failed: {last}")
        result: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
    return result


def score(task: DemoTask, answers: Sequence[str], rows: Sequence[DemoRow]) -> float:
    """Corpus BLEU (0 to 100) over all references, or accuracy (0 to 1)."""
    if task.metric == "accuracy":
        return sum(
            answer == row.references[0] for answer, row in zip(answers, rows, strict=True)
        ) / len(rows)
    return bleu(answers, [row.references for row in rows])


def samples(
    answers: Mapping[str, Sequence[str]], rows: Sequence[DemoRow], count: int
) -> list[dict[str, str]]:
    """The first test rows with what base and prefix made of them, and the reference."""
    return [
        {
            "input": row.input,
            "base": answers["base"][index],
            "prefix": answers["prefix"][index],
            "reference": row.references[0],
        }
        for index, row in enumerate(rows[:count])
    ]


def _follow(process: subprocess.Popen[str], advance: Advance) -> None:
    assert process.stdout is not None  # it is a pipe
    for line in process.stdout:
        told = json.loads(line)
        advance(told["done"], told["words"])
