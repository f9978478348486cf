"""What the commands over a bundle share: their options, opening the engine, and writing results
line by line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from edgeprefix.runtime.cli.terminal import terminal, text_column
from edgeprefix.runtime.contracts.files import output_errors
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.decoding.cache_plan import CachePlan
from edgeprefix.runtime.engine import Engine
from edgeprefix.runtime.errors import OutputError

Bundle = Annotated[
    Path, typer.Argument(help="Folder that `export decoder` wrote.", metavar="BUNDLE")
]
PrefixFile = Annotated[
    Path | None, typer.Option("--prefix", help="Prefix file of the task; none: the bare base.")
]
MaxBatch = Annotated[int, typer.Option("--max-batch", min=1, help="Sequences that run at once.")]
MaxLength = Annotated[
    int,
    typer.Option(
        "--max-length", min=1, help="Positions of a sequence: prefix, prompt, new tokens."
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Compute threads; default: the physical cores."),
]
Providers = Annotated[
    list[str] | None,
    typer.Option("--provider", help="ONNX Runtime execution provider; repeatable."),
]
Template = Annotated[
    str | None, typer.Option("--template", help="Prompt template that overrides the task's own.")
]

TrustedKeyFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--require-signature",
        metavar="KEYS",
        help="Refuse the prefix unless one of these public keys signed it (files, or folders of "
        "*.pub); repeatable.",
    ),
]

errors = terminal(stderr=True)


@contextmanager
def open_engine(
    bundle: Path,
    prefix: Path | None,
    *,
    max_batch: int,
    max_length: int,
    threads: int | None,
    providers: list[str] | None,
    steady: bool = False,
    trusted_keys: list[Path] | None = None,
) -> Iterator[tuple[Engine, str | None]]:
    """The engine with the prefix file loaded, and the task's name. What the cache takes is said
    before it is allocated.
    """
    plan = CachePlan.of(
        Manifest.load(bundle), max_batch=max_batch, max_length=max_length, steady=steady
    )
    errors.print(str(plan), style="dim", highlight=False, soft_wrap=True)
    with Engine.load(
        bundle,
        max_batch=max_batch,
        max_length=max_length,
        threads=threads,
        providers=providers or None,
        steady=steady,
        trusted_keys=trusted_keys or None,
    ) as engine:
        yield engine, None if prefix is None else engine.load_prefix(prefix).name


def progress_bar() -> Progress:
    """A bar with counts and times on stderr, silent when that is no terminal."""
    return Progress(
        text_column(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )


class ResultFile:
    """JSONL results that grow in `FILE.partial` and become FILE when all are there; an interrupted
    job can go on.
    """

    def __init__(self, path: Path, *, resume: bool, force: bool = False) -> None:
        if path.exists() and not force:
            raise OutputError(
                f"{path} exists already; choose another --out, or pass --force to replace it"
            )
        self._path, self._partial = path, path.with_name(path.name + ".partial")
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.rows = _mend(self._partial) if resume else []
            """What an interrupted job had written."""
            self._file: TextIO = open(self._partial, "a" if resume else "w", encoding="utf-8")  # noqa: SIM115

    @property
    def done(self) -> int:
        """Rows that an interrupted job had written."""
        return len(self.rows)

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends one result."""
        with output_errors(self._path):
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
            self._file.flush()

    def __enter__(self) -> ResultFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is None:
            with output_errors(self._path):
                self._partial.replace(self._path)
        elif issubclass(kind, KeyboardInterrupt):
            errors.print(
                (
                    f"stopped; {self._partial} keeps what is done, the same command with --resume "
                    "goes on"
                ),
                style="yellow",
            )


def _mend(partial: Path) -> list[dict[str, Any]]:
    """Cuts a half-written last line off and reads the whole ones."""
    if not partial.exists():
        return []
    content = partial.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    try:
        rows = [dict(json.loads(line)) for line in whole.splitlines()]
    except ValueError as error:
        raise OutputError(
            f"{partial} is no interrupted result: {error}; start again without --resume"
        ) from error
    if whole != content:
        partial.write_bytes(whole)
    return rows
