"""Commands that are killed or meet a full disk, and a user who goes on after that.

One try: the folder is as before, the command is killed, everything that lies there must be whole;
then the user types the next commands until one succeeds, and its result must be that of a command
that nobody disturbed, with nothing left behind.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from faulty_jobs import Job

HERE = Path(__file__).parent


def build_shim(folder: Path) -> Path:
    """Compiles fault.c. Raises FileNotFoundError or CalledProcessError without a C compiler."""
    library = folder / "libfault.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "fault.c"), "-ldl"],
        check=True,
        capture_output=True,
    )
    return library


class Faulty:
    """The process that forks the commands. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._output = folder / "output.txt"
        self._zygote = subprocess.Popen(
            [sys.executable, str(HERE / "zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "LD_PRELOAD": str(build_shim(folder)),
                "OMP_NUM_THREADS": "1",
                "EDGEPREFIX_CACHE": str(folder / "cache"),
            },
        )

    def __enter__(self) -> Faulty:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._zygote.kill()
        self._zygote.wait()

    def command(self, args: Sequence[str], work: Path, **how: Any) -> dict[str, Any]:
        """Runs one command; `how` as zygote.py takes it. Its output is added as "output"."""
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        job = {
            "args": [arg.format(work=work) for arg in args],
            "stdout": str(self._output),
            "root": str(work),
            "mode": "count",
            **how,
        }
        self._zygote.stdin.write(json.dumps(job) + "\n")
        self._zygote.stdin.flush()
        answer = dict(json.loads(self._zygote.stdout.readline()))
        return {**answer, "output": self._output.read_text(errors="replace")}

    def undisturbed(self, job: Job) -> tuple[Any, dict[str, Any]]:
        """The result of a job that nobody disturbs, and its answer (seconds, operations)."""
        work = self._fresh(job)
        answer = self.command(job.first, work)
        assert answer["rc"] == 0, answer["output"]
        job.whole(work)
        return job.result(work), answer

    def try_once(self, job: Job, reference: Any, **how: Any) -> list[str]:
        """One disturbed run of a job, and the user's next commands. Returns what went wrong."""
        work = self._fresh(job)
        problems = []
        answer = self.command(job.first, work, **how)
        if "Traceback" in answer["output"]:
            problems.append(f"a traceback: {answer['output'][-600:]}")
        try:
            job.whole(work)
        except Exception as error:  # whatever is wrong with the files is what we look for
            problems.append(f"after the first run: {type(error).__name__}: {error}")
        if answer["rc"] != 0:
            problems += self._go_on(job, work)
        if not problems:
            problems += self._compared(job, work, reference)
        return problems

    def _go_on(self, job: Job, work: Path) -> list[str]:
        said = []
        for args in job.again:
            answer = self.command(args, work)
            if answer["rc"] == 0:
                return []
            said.append(answer["output"].strip()[-300:])
        return [f"no second run succeeds: {said}"]

    def _compared(self, job: Job, work: Path, reference: Any) -> list[str]:
        try:
            if job.result(work) != reference:
                return ["the result is another one than that of an undisturbed run"]
        except Exception as error:  # as above
            return [f"after the second run: {type(error).__name__}: {error}"]
        left = [str(path.relative_to(work)) for path in work.rglob("*") if left_behind(path)]
        return [f"left behind: {left}"] if left else []

    def _fresh(self, job: Job) -> Path:
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        job.start(work)
        return work


def left_behind(path: Path) -> bool:
    """Temporary names of ours: hidden ones and unfinished results."""
    return path.name.startswith(".") or path.suffix in (".partial", ".tmp")
