"""The RUN folder.

run.json: settings and facts; metrics.jsonl: a line per log step and validation; prefix.safetensors:
the best so far.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgeprefix.runtime.contracts.files import output_errors, write_atomic
from edgeprefix.runtime.errors import OutputError

RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
CURVE_FILE = "curve.png"
PREFIX_FILE = "prefix.safetensors"


class RunFolder:
    """Writes a run's files, whole or not at all; every failure is an OutputError that names the
    file.

    Of several processes only the one with `writes` does so.
    """

    def __init__(self, path: str | Path, *, writes: bool = True) -> None:
        self.path = Path(path)
        self.writes = writes
        self.mirror: Callable[[Mapping[str, Any]], None] | None = None
        """Gets every line of metrics.jsonl too."""

    @classmethod
    def open(cls, path: str | Path, *, resume: bool, force: bool, writes: bool = True) -> RunFolder:
        """Makes the folder, and proves that it can be written before any time is spent.

        Raises OutputError when it cannot, or when it holds a run already and neither `resume` nor
        `force` is asked for.
        """
        run = cls(path, writes=writes)
        if not writes:
            return run
        if run.file(RUN_FILE).exists() and not (resume or force):
            raise OutputError(
                f"{path} holds a run already; pass --resume to go on with it, --force to replace "
                "it, or choose another --out"
            )
        with output_errors(run.path):
            run.path.mkdir(parents=True, exist_ok=True)
        write_atomic(run.file(".writable"), b"")
        run.file(".writable").unlink()
        return run

    def file(self, name: str) -> Path:
        """The path of one of the run's files."""
        return self.path / name

    def write(self, name: str, data: bytes) -> None:
        """Writes one of the run's files."""
        if self.writes:
            write_atomic(self.file(name), data)

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Writes run.json."""
        self.write(RUN_FILE, (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode())

    def read_facts(self) -> dict[str, Any]:
        """Reads run.json; empty when there is none."""
        path = self.file(RUN_FILE)
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    def start_metrics(self, *, keep_until: int) -> None:
        """Keeps the lines up to a step (a resumed run writes the later ones again); -1 empties the
        file.
        """
        kept = [line for line in self.read_metrics() if line["step"] <= keep_until]
        self.write(METRICS_FILE, "".join(_line(entry) for entry in kept).encode())

    def add_metrics(self, entry: Mapping[str, Any]) -> None:
        """Appends one line."""
        if not self.writes:
            return
        path = self.file(METRICS_FILE)
        with output_errors(path), open(path, "a", encoding="utf-8") as file:
            file.write(_line(entry))
        if self.mirror is not None:
            self.mirror(entry)

    def read_metrics(self) -> list[dict[str, Any]]:
        """All lines; a last line cut off by a crash is left out."""
        path = self.file(METRICS_FILE)
        if not path.exists():
            return []
        entries = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entries.append(dict(json.loads(line)))
            except ValueError:
                break
        return entries


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry) + "\n"
