"""`edgeprefix verify`: a bundle is compared with torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgeprefix.export.cli.quality import AllowLoss, TextFile
from edgeprefix.export.verify import verify
from edgeprefix.runtime.contracts.files import write_atomic


def verify_command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle.")],
    base: Annotated[str, typer.Option("--base", metavar="BASE", help="The base it was made of.")],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a base from the hub.")
    ] = None,
    prefix: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Prefix file to verify with.")
    ] = None,
    text: TextFile = None,
    allow_loss: AllowLoss = None,
    json_out: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON.")
    ] = None,
) -> None:
    """Compare BUNDLE with torch: prefill, chunks, decode, prefix, mixed rows, long text, and the
    perplexity of ordinary text. Exit 1 when it differs.
    """
    report = verify(
        bundle, base, revision=revision, prefix=prefix, text=text, allow_loss=allow_loss
    )
    if json_out is not None:
        write_atomic(json_out, (json.dumps(report.to_json(), indent=2) + "\n").encode())
    typer.echo(report.to_text())
    if not report.passed:
        raise typer.Exit(1)
