"""The commands `export decoder`, `export prefix` and `verify`. Errors go up to the root, which prints them."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from edgeprefix.export.bundle import STAGES, export_decoder, silent
from edgeprefix.export.bundle import Progress as Report
from edgeprefix.export.prefix import export_prefix
from edgeprefix.export.verify import verify
from edgeprefix.runtime.contracts.files import write_atomic
from edgeprefix.runtime.contracts.manifest import Manifest

export_app = typer.Typer(no_args_is_help=True, help="Write a base as a bundle, or a trained run as a prefix file.")
verify_app = typer.Typer(help="Compare a bundle with torch.")


class Precision(enum.StrEnum):
    """Precision of the weights."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"


class PrefixDtype(enum.StrEnum):
    """Precision of a prefix file."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


@export_app.command("decoder")
def decoder_command(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Folder of a checkpoint, or a hub id.")],
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="Folder to write.")],
    precision: Annotated[Precision, typer.Option(help="Weights: fp32, fp16 (GPU), int8 or int4.")] = Precision.FP32,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="Try a two-layer copy first: seconds.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Write BASE as a bundle: graph, weights, tokenizer, manifest; compared with torch before it is done."""
    with _progress(quiet) as report:
        manifest = export_decoder(base, out, precision=precision.value, force=force, smoke=smoke, progress=report)
    typer.echo(_summary(out, manifest))


@export_app.command("prefix")
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


@verify_app.command()
def verify_command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle.")],
    base: Annotated[str, typer.Option("--base", metavar="BASE", help="The checkpoint it was made of.")],
    prefix: Annotated[Path | None, typer.Option(metavar="FILE", help="Prefix file to verify with.")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON.")] = None,
) -> None:
    """Compare BUNDLE with torch: prefill, chunks, decode, prefix, mixed rows, long text. Exit 1 when it differs."""
    report = verify(bundle, base, prefix=prefix)
    if json_out is not None:
        write_atomic(json_out, (json.dumps(report.to_json(), indent=2) + "\n").encode())
    typer.echo(report.to_text())
    if not report.passed:
        raise typer.Exit(1)


@contextmanager
def _progress(quiet: bool) -> Iterator[Report]:
    """A bar with one step a stage, on the terminal only."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield silent
        return
    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task: TaskID = bars.add_task(STAGES[0], total=len(STAGES))
        yield lambda stage, done: bars.update(task, description=stage, completed=STAGES.index(stage) + done)


def _summary(out: Path, manifest: Manifest) -> str:
    size = sum(record.bytes for record in manifest.files.values())
    parity = manifest.parity
    checked = (
        f"top-1 agreement with torch {parity['top1']:.1%}, largest difference {parity['max_abs']:.1e}"
        if parity
        else "not verified"
    )
    return f"{out}: {manifest.model_type}, {len(manifest.layers)} layers, {manifest.precision}, {size / 1e6:,.1f} MB; {checked}"
