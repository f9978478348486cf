"""`edgeprefix compose`: several prefixes become one, their keys moved to the positions where they
then stand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprefix.cli.common import errors
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.prefix_file import DTYPES, Prefix
from edgeprefix.runtime.errors import OutputError
from edgeprefix.runtime.tasks.compose import compose

compose_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@compose_app.command(name="compose")
def compose_files(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FIRST SECOND…", help="Prefix files of one base, in their order."),
    ],
    bundle: Annotated[
        Path, typer.Option("--bundle", metavar="BUNDLE", help="Bundle of their base.")
    ],
    task: Annotated[str, typer.Option("--task", metavar="NAME", help="Name of the new task.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Prefix file to write.")],
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype", help=f"Precision of the file: {', '.join(DTYPES)}; default the first one's."
        ),
    ] = None,
    keep_begin: Annotated[
        bool,
        typer.Option(
            "--keep-begin",
            help="Keep the begin token of a compiled prefix that does not stand first.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing --out.")] = False,
) -> None:
    """Put prefixes behind each other: a style and a system prompt, say. Prompt template, labels and
    stops are the last one's.

    The second text was computed without the first: what that changes is measured in
    docs/compose.md.
    """
    if len(files) < 2:
        raise typer.BadParameter("give two prefix files or more", param_hint="FIRST SECOND…")
    if dtype is not None and dtype not in DTYPES:
        raise typer.BadParameter(f"{dtype!r} is none of {', '.join(DTYPES)}", param_hint="--dtype")
    if out.exists() and not force:
        raise OutputError(
            f"{out} exists already; choose another --out, or pass --force to replace it"
        )
    prefixes = [Prefix.load(file) for file in files]
    whole = compose(prefixes, Manifest.load(bundle), name=task, keep_begin=keep_begin)
    (whole if dtype is None else whole.with_dtype(dtype)).save(out)
    lengths = " + ".join(
        f"{source['task']} {source['positions']}" for source in whole.pack.recipe["of"]
    )
    size = f"{lengths} = {whole.length} positions, {out.stat().st_size:,} bytes"
    errors.print(f"{out}: task {task}, {size}", style="green", soft_wrap=True)
