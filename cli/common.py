"""What the commands over a bundle share: their options, opening the engine, and writing results
line by line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from edgeprefix.cli.results import ResultFile as ResultFile
from edgeprefix.cli.terminal import terminal, text_column
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.prompt import unescaped
from edgeprefix.runtime.decoding.cache_plan import CachePlan
from edgeprefix.runtime.engine import Engine
from edgeprefix.runtime.errors import DataError

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
    str | None,
    typer.Option(
        "--template",
        parser=unescaped,
        metavar="TEXT",
        help=r"Prompt template instead of the task's own; \n, \t, \\ as in `train --prompt`.",
    ),
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


def read_standard_input(instead: str) -> str:
    """All text of standard input, line ends as `\\n`. Raises DataError when it is closed or is no
    text in its encoding; `instead` is what to type then.
    """
    if sys.stdin is None:
        raise DataError(f"standard input is closed; give the text with {instead}")
    encoding = sys.stdin.encoding or "utf-8"
    try:
        text = sys.stdin.buffer.read().decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"standard input is no {encoding.upper()} text: byte {error.start} is "
            f"0x{error.object[error.start]:02x}; convert it (iconv), or set PYTHONIOENCODING to "
            "its encoding"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
