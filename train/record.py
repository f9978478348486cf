"""The RUN folder: names its files, writes each whole or not at all, and removes them when a run is
replaced.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from edgeprefix.runtime.contracts.files import output_errors, remove_abandoned, write_atomic
from edgeprefix.runtime.errors import OutputError, TrainingError


class RunFolder:
    """A run's files; every failure to write is an OutputError that names the file.

    Of several processes only the one with `writes` writes.
    """

    def __init__(self, path: str | Path, *, writes: bool = True) -> None:
        self.path = Path(path)
        self.writes = writes
        self.mirror: Callable[[Mapping[str, Any]], None] | None = None
        """Gets every line of metrics.jsonl too."""
        self.facts_path = self.path / "run.json"
        """Settings, facts and the result."""
        self.metrics_path = self.path / "metrics.jsonl"
        """A line per log step and validation."""
        self.curve_path = self.path / "curve.png"
        self.prefix_path = self.path / "prefix.safetensors"
        """The best prefix so far."""
        self.checkpoint_path = self.path / "last.safetensors"
        """What a resume needs (checkpoint.py), the start included."""
        self.teacher_path = self.path / "teacher.safetensors"
        self.tensorboard_path = self.path / "tensorboard"
        self._trials = self.path / "search"

    @property
    def files(self) -> tuple[Path, ...]:
        """All that are written at once, whether they are there or not."""
        return (
            self.prefix_path, self.facts_path, self.metrics_path, self.curve_path,
            self.checkpoint_path, self.teacher_path,
        )  # fmt: skip

    @classmethod
    def open(cls, path: str | Path, *, resume: bool, force: bool, writes: bool = True) -> RunFolder:
        """Makes the folder, and proves that it can be written before any time is spent.

        Raises OutputError when it cannot, or when it holds a run already and neither `resume` nor
        `force` is asked for. With `force` the old run stays until `reset`.
        """
        run = cls(path, writes=writes)
        if not writes:
            return run
        held = [run.facts_path, run.checkpoint_path, run.prefix_path]
        if any(file.exists() for file in held) and not (resume or force):
            raise OutputError(
                f"{path} holds a run already; pass --resume to go on with it, --force to replace "
                "it, or choose another --out"
            )
        with output_errors(run.path):
            run.path.mkdir(parents=True, exist_ok=True)
            for file in run.files:
                remove_abandoned(file)
        probe = run.path / ".writable"
        write_atomic(probe, b"")
        probe.unlink()
        return run

    def reset(self, *, keep_teacher: bool = False, keep_trials: bool = False) -> None:
        """Removes the files of an earlier run. What is not ours stays, and so does a folder that
        holds it.
        """
        if not self.writes:
            return
        if not keep_trials:
            self.reset_trials()
        files = {*self.files, *self.tensorboard_path.glob("events.out.tfevents.*")}
        if keep_teacher:
            files.remove(self.teacher_path)
        with output_errors(self.path):
            for file in files:
                file.unlink(missing_ok=True)
                if file.parent.exists():
                    remove_abandoned(file)
        _remove_empty(self.tensorboard_path)

    def reset_trials(self) -> None:
        """Removes the trials of an earlier search."""
        for folder in self._trials.glob("*"):
            if folder.name.isdecimal():
                RunFolder(folder, writes=self.writes).reset()
                _remove_empty(folder)
        _remove_empty(self._trials)

    def trial(self, number: int) -> RunFolder:
        """The folder of one of a search's trials."""
        return RunFolder(self._trials / str(number), writes=self.writes)

    def write(self, path: Path, data: bytes) -> None:
        """Writes one of the run's files."""
        if self.writes:
            write_atomic(path, data)

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Writes run.json."""
        text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
        self.write(self.facts_path, text.encode())

    def read_facts(self) -> dict[str, Any]:
        """Reads run.json; empty when there is none. Raises TrainingError when it is damaged."""
        try:
            return dict(json.loads(self.facts_path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError) as error:
            raise TrainingError(
                f"{self.facts_path} cannot be read: {error}; give --force to start anew"
            ) from error

    def start_metrics(self, *, keep_until: int) -> None:
        """Keeps the lines up to a step (a resumed run writes the later ones again); -1 empties the
        file.
        """
        kept = [line for line in self.read_metrics() if line["step"] <= keep_until]
        self.write(self.metrics_path, "".join(_line(entry) for entry in kept).encode())

    def add_metrics(self, entry: Mapping[str, Any]) -> None:
        """Appends one line."""
        if not self.writes:
            return
        path = self.metrics_path
        with output_errors(path), open(path, "a", encoding="utf-8") as file:
            file.write(_line(entry))
        if self.mirror is not None:
            self.mirror(entry)

    def read_metrics(self) -> list[dict[str, Any]]:
        """All lines; a last line cut off by a crash is left out."""
        if not self.metrics_path.exists():
            return []
        entries = []
        for line in self.metrics_path.read_text(encoding="utf-8").splitlines():
            try:
                entries.append(dict(json.loads(line)))
            except ValueError:
                break
        return entries

    def write_teacher(self, tensors: Mapping[str, Tensor], key: str) -> None:
        """Keeps a teacher's answers under the key of all that they depend on."""
        self.write(self.teacher_path, safetensors.torch.save(dict(tensors), {"key": key}))

    def read_teacher(self, key: str) -> dict[str, Tensor] | None:
        """A teacher's answers; None when there are none under this key. Raises TrainingError when
        the file is damaged.
        """
        if not self.teacher_path.exists():
            return None
        try:
            with safetensors.safe_open(self.teacher_path, framework="pt") as file:
                if (file.metadata() or {}).get("key") != key:
                    return None
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        except (OSError, safetensors.SafetensorError) as error:
            raise TrainingError(
                f"{self.teacher_path} cannot be read: {error}; delete it, and it is computed anew"
            ) from error


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not there, or something of the user's in it
        folder.rmdir()


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry) + "\n"
