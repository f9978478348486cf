"""`edgeprefix export prefix`: what was trained becomes a prefix file."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from edgeprefix.export.prefix import export_prefix


class PrefixDtype(enum.StrEnum):
    """Precision of a prefix file."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


def prefix_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `edgeprefix train` wrote.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Prefix file to write.")],
    base: Annotated[
        str | None, typer.Option(metavar="BASE", help="Check that the prefix belongs to this base.")
    ] = None,
    dtype: Annotated[PrefixDtype, typer.Option(help="Precision of keys and values in the file.")] = PrefixDtype.FP32,
) -> None:
    """Write the best prefix of RUN as a prefix file."""
    prefix = export_prefix(run, out, base=base, dtype=dtype.value)
    typer.echo(
        f"{out}: task {prefix.name}, {prefix.length} positions, base {prefix.base}, {out.stat().st_size:,} bytes"
    )
