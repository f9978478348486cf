"""`edgeprefix export decoder`: a base becomes a bundle."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from edgeprefix.export.bundle import export_decoder
from edgeprefix.export.cli.progress import stage_bar
from edgeprefix.runtime.contracts.manifest import Manifest


class Precision(enum.StrEnum):
    """Precision of the weights."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"


def decoder_command(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Folder of a checkpoint, or a hub id.")],
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="Folder to write.")],
    precision: Annotated[Precision, typer.Option(help="Weights: fp32, fp16 (GPU), int8 or int4.")] = Precision.FP32,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="Try a two-layer copy first: seconds.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Write BASE as a bundle: graph, weights, tokenizer, manifest; compared with torch before it is done."""
    with stage_bar(quiet) as report:
        manifest = export_decoder(base, out, precision=precision.value, force=force, smoke=smoke, progress=report)
    typer.echo(_summary(out, manifest))


def _summary(out: Path, manifest: Manifest) -> str:
    size = sum(record.bytes for record in manifest.files.values())
    parity = manifest.parity
    checked = (
        f"top-1 agreement with torch {parity['top1']:.1%}, largest difference {parity['max_abs']:.1e}"
        if parity
        else "not verified"
    )
    return f"{out}: {manifest.model_type}, {len(manifest.layers)} layers, {manifest.precision}, {size / 1e6:,.1f} MB; {checked}"
