"""A few of the kills and full disks of `make test-faults`, for each command."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from faulty import Faulty
from faulty_inputs import make_jobs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler"),
]


def test_a_killed_command_loses_nothing(tmp_path: Path) -> None:
    problems = []
    with Faulty(tmp_path / "faults") as faulty:
        for job in make_jobs(tmp_path / "inputs"):
            reference, undisturbed = faulty.undisturbed(job)
            operations = undisturbed["operations"]
            for mode in ("kill", "full"):
                for at in {1, operations // 2, operations}:
                    how = {"mode": mode, "at": at}
                    found = faulty.try_once(job, reference, **how)
                    problems += [f"{job.name} {how}: {problem}" for problem in found]
    assert not problems, "\n".join(problems)
