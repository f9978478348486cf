"""Results of a job over rows: JSONL that grows line by line, survives an interruption, and has a
row for every row of the data, the bad ones too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

import typer

from edgeprefix.cli.rows import Row
from edgeprefix.cli.terminal import terminal
from edgeprefix.runtime.contracts.files import output_errors, sha256_of_file, write_atomic
from edgeprefix.runtime.contracts.locks import only_writer
from edgeprefix.runtime.contracts.manifest import MANIFEST_FILE, Manifest
from edgeprefix.runtime.contracts.prefix_file import read_prefix_bytes
from edgeprefix.runtime.contracts.strict_json import read_document
from edgeprefix.runtime.errors import (
    DataError,
    NumericalError,
    OutputError,
    RequestError,
    RequestTimeout,
    TemplateError,
)

T = TypeVar("T")

ERROR = "error"
"""The field of a row that could not be served."""
OF_A_ROW = (DataError, TemplateError, RequestError, NumericalError, RequestTimeout)
"""Errors that are one row's own; any other ends the job."""
_SHOWN = 5


def describe_job(
    bundle: Path, prefix: Path | None, rows: Sequence[Row], **settings: Any
) -> dict[str, Any]:
    """What a job's results depend on, as JSON values: only the very same job may go on with what an
    interrupted one has written. Raises BundleError, PrefixFileError.
    """
    Manifest.load(bundle)  # which says what to do when it is none
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row.content).encode() + b"\n")
    facts = {
        "data": digest.hexdigest(),
        "bundle": sha256_of_file(bundle / MANIFEST_FILE),
        "prefix": (
            None if prefix is None else hashlib.sha256(read_prefix_bytes(prefix)).hexdigest()
        ),
        **settings,
    }
    return dict(json.loads(json.dumps(facts, default=str)))


class ResultFile:
    """JSONL results that grow in `FILE.partial` and become FILE when all are there; an interrupted
    job can go on. `FILE.job.partial` says which job that is.
    """

    def __init__(
        self,
        path: Path,
        *,
        resume: bool,
        force: bool = False,
        job: Mapping[str, Any] | None = None,
    ) -> None:
        """`job` is `describe_job`'s. Raises OutputError when FILE is there already, is being
        written by another job, cannot be written, or (`resume`) another job was interrupted.
        """
        if path.is_dir() or (path.exists() and not force):
            raise OutputError(
                f"{path} exists already; choose another --out, or pass --force to replace it"
            )
        self._path, self._partial = path, path.with_name(path.name + ".partial")
        self._job_file = path.with_name(path.name + ".job.partial")
        self._served = 0
        with output_errors(path), contextlib.ExitStack() as alone:
            path.parent.mkdir(parents=True, exist_ok=True)
            alone.enter_context(only_writer(path))  # two jobs would mix their rows
            self.rows = _mend(self._partial) if resume else []
            """What an interrupted job had written."""
            if self.rows:
                self._require_same(job or {})
            else:  # first of all: no other job's rows may stand beside this job's name
                self._partial.unlink(missing_ok=True)
            write_atomic(self._job_file, json.dumps(job or {}).encode())
            self._file: TextIO = open(self._partial, "a", encoding="utf-8")  # noqa: SIM115
            self._alone = alone.pop_all()  # until the job ends

    @property
    def done(self) -> int:
        """Rows that an interrupted job had written."""
        return len(self.rows)

    def done_of(self, data: Sequence[Row]) -> list[tuple[Row, dict[str, Any]]]:
        """What an interrupted job had written, beside its rows. Raises DataError unless they are
        the first of these (a partial file may have been put there by hand).
        """
        for row, earlier in zip(data, self.rows, strict=False):
            if any(
                earlier.get(name, row) not in (value, row.fields.get(name))
                for name, value in row.content.items()
            ):
                raise DataError(
                    f"{row.place} is not the row that the interrupted run had scored there or "
                    "generated for; start again without --resume"
                )
        if self.done > len(data):
            raise DataError(
                f"the interrupted run had {self.done} rows, the data have {len(data)}; start "
                "without --resume"
            )
        return list(zip(data, self.rows, strict=False))

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends one result."""
        with output_errors(self._path):
            self._file.write(_json_line(row))
            self._file.flush()
        self._served += ERROR not in row

    def __enter__(self) -> ResultFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._alone:
            self._end(kind)

    def _end(self, kind: type[BaseException] | None) -> None:
        if kind is None:
            with output_errors(self._path):
                os.fsync(self._file.fileno())
                self._file.close()
                self._job_file.unlink(missing_ok=True)
                self._partial.replace(self._path)
            return
        with contextlib.suppress(OSError):  # a full disk refuses the last bytes once more
            self._file.close()
        if self._served or any(ERROR not in row for row in self.rows):
            terminal(stderr=True).print(
                f"stopped; {self._partial} keeps what is done, the same command with --resume "
                "goes on",
                style="yellow",
            )
            return
        for useless in (self._partial, self._job_file):
            with contextlib.suppress(OSError):
                useless.unlink()

    def _require_same(self, job: Mapping[str, Any]) -> None:
        """Raises OutputError when the interrupted job was another one. Without its file (an older
        version's) only the rows can be compared, which is said.
        """
        try:
            before = read_document(self._job_file.read_bytes())
        except FileNotFoundError:
            terminal(stderr=True).print(
                f"{self._partial} does not say how it was made: its rows are compared with the "
                "data, its settings are taken to be these",
                style="yellow",
            )
            return
        except ValueError as error:
            raise OutputError(
                f"{self._job_file} cannot be read: {error}; start again without --resume"
            ) from error
        differing = [
            name
            for name in {**job, **before}
            if job and before and job.get(name) != before.get(name)
        ]
        if differing:
            raise OutputError(
                f"{self._partial} is of another job: different {', '.join(differing)}; type the "
                "command as it was, or start again without --resume"
            )


class Failures:
    """Rows that could not be served, told at the end."""

    def __init__(self, done: Iterable[tuple[Row, Mapping[str, Any]]]) -> None:
        """`done` are the rows of an interrupted job, whose failures count too."""
        self._lines: list[str] = []
        for row, earlier in done:
            if ERROR in earlier:
                self.add(row, str(earlier[ERROR]))

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, row: Row, reason: str) -> None:
        """Takes one down by file and line."""
        self._lines.append(f"{row.place}: {reason}")

    def require_some(self, rows: int) -> None:
        """Raises DataError when every row failed: then nothing is worth keeping."""
        if rows and len(self) == rows:
            raise DataError(f"{self._lines[0]} (so it was with all {rows} rows; nothing is kept)")

    def tell(self, rows: int) -> None:
        """The first of them on stderr; then the command ends with exit code 1. Nothing when there
        are none.
        """
        if not self._lines:
            return
        console = terminal(stderr=True)
        for line in self._lines[:_SHOWN]:
            console.print(f"error: {line}", style="red", soft_wrap=True, highlight=False)
        console.print(f"{len(self)} of {rows} rows failed", style="red", highlight=False)
        raise typer.Exit(1)


def require_free(rows: Sequence[Row], names: Iterable[str]) -> None:
    """Raises DataError when a row has a field of a name that results are written to."""
    taken = {ERROR, *names}
    for row in rows:
        if clash := sorted(taken & row.content.keys()):
            raise DataError(
                f"{row.place}: field {clash[0]!r} is where the result goes; give that field of the "
                "data another name"
            )


def served(
    rows: Sequence[Row],
    names: Collection[str],
    serve: Callable[[Iterator[Row]], Iterator[tuple[int, T | Exception]]],
) -> Iterator[tuple[Row, T | str]]:
    """Each row with its result or the reason why it has none, in order. Rows that have all the
    fields `names` as text are given to `serve`; an error that is no row's own is raised.
    """
    problems = {row.line: row.problem(names) for row in rows}
    outcomes = serve(row for row in rows if problems[row.line] is None)
    for row in rows:
        if (problem := problems[row.line]) is not None:
            yield row, problem
            continue
        _, outcome = next(outcomes)
        if not isinstance(outcome, Exception):
            yield row, outcome
        elif isinstance(outcome, OF_A_ROW):
            yield row, str(outcome.__cause__ if outcome.row is not None else outcome)
        else:
            raise outcome


def _json_line(row: Mapping[str, Any]) -> str:
    """A line of JSON; one with half a character, which UTF-8 cannot hold, is escaped."""
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(row)
    return line + "\n"


def _mend(partial: Path) -> list[dict[str, Any]]:
    """Cuts a half-written last line off and reads the whole ones."""
    if not partial.exists():
        return []
    content = partial.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    try:
        rows = [dict(json.loads(line)) for line in whole.splitlines()]
    except (ValueError, TypeError, RecursionError) as error:
        raise OutputError(
            f"{partial} is no interrupted result: {error}; start again without --resume"
        ) from error
    if whole != content:
        partial.write_bytes(whole)
    return rows
