"""`edgeprefix export decoder`: a base becomes a bundle."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Annotated

import typer

from edgeprefix.export.adopt.optimum import export_with_optimum
from edgeprefix.export.bundle import export_decoder
from edgeprefix.export.cli.progress import stage_bar
from edgeprefix.export.cli.quality import AllowLoss, TextFile
from edgeprefix.export.rounding.plan import FittedPlan
from edgeprefix.export.rounding.table import plan_table
from edgeprefix.export.size import Wanted
from edgeprefix.runtime.contracts.manifest import Manifest

_UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30,
}  # fmt: skip


class Precision(enum.StrEnum):
    """Precision of the weights."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"
    AS_STORED = "as-stored"


class CacheDtype(enum.StrEnum):
    """What keys and values are held in, when it is not what the graph computes in."""

    INT8 = "int8"


class Rounding(enum.StrEnum):
    """How int4 weights are found."""

    FITTED = "fitted"
    NEAREST = "nearest"


class Backend(enum.StrEnum):
    """Who writes the graph."""

    EDGEPREFIX = "edgeprefix"
    OPTIMUM = "optimum"


def decoder_command(
    base: Annotated[
        str,
        typer.Argument(metavar="BASE", help="Folder of a checkpoint, a GGUF file, or a hub id."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="Folder to write.")],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a base from the hub.")
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(
            help="Weights: fp32, fp16 (GPU), int8, int4, or as-stored: a GGUF file's own numbers."
        ),
    ] = Precision.FP32,
    cache: Annotated[
        CacheDtype | None,
        typer.Option(
            help="Keys and values in 8 bits: a quarter of the memory (CPU, onnxruntime 1.27+)."
        ),
    ] = None,
    calibrate: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help=(
                "Rows (JSONL or CSV) of the bundle's task: int4 weights are fitted to them, and an "
                "int8 cache must hold them. With --cache int8 also prefix files, or a folder of "
                "them. Repeatable."
            ),
        ),
    ] = None,
    rounding: Annotated[
        Rounding,
        typer.Option(
            help=("int4 weights: fitted to text, which takes minutes, or each to the nearest step.")
        ),
    ] = Rounding.FITTED,
    size: Annotated[
        int | None,
        typer.Option(
            parser=bytes_of,
            metavar="SIZE",
            help="int4: largest size of the bundle, 240MB say; the best mix of 4 and 8 bits in it.",
        ),
    ] = None,
    quality: Annotated[
        float | None,
        typer.Option(
            metavar="RATIO",
            help=(
                "int4: largest perplexity as a multiple of the base's, 1.03 say; the smallest mix "
                "of 4 and 8 bits that keeps to it."
            ),
        ),
    ] = None,
    backend: Annotated[
        Backend,
        typer.Option(help="Who writes the graph; Optimum (fp32) needs the extra [optimum]."),
    ] = Backend.EDGEPREFIX,
    text: TextFile = None,
    allow_loss: AllowLoss = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Try a two-layer copy first: seconds.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Write BASE as a bundle: graph, weights, tokenizer, manifest; compared with torch before it is
    done.
    """
    if backend is Backend.OPTIMUM:
        if (
            precision is not Precision.FP32
            or cache is not None
            or smoke
            or calibrate
            or size
            or quality
            or text
            or allow_loss
        ):
            raise typer.BadParameter(
                "goes with none of --precision, --cache, --calibrate, --size, --quality, --text, "
                "--allow-loss, --smoke: Optimum writes fp32",
                param_hint="--backend optimum",
            )
        manifest = export_with_optimum(base, out, revision=revision, force=force)
        typer.echo(summary(out, manifest))
        return
    wanted = _wanted(precision, rounding, size, quality)
    if calibrate and cache is None and wanted is None:
        raise typer.BadParameter(
            "is for an int8 cache, and for int4 weights that are fitted to text",
            param_hint="--calibrate",
        )
    plans: list[FittedPlan] = []
    with stage_bar(quiet) as report:
        manifest = export_decoder(
            base,
            out,
            revision=revision,
            precision=precision.value,
            cache=None if cache is None else cache.value,
            calibrate=calibrate or (),
            text=text,
            allow_loss=allow_loss,
            rounding=wanted,
            fitted=plans.append,
            force=force,
            smoke=smoke,
            progress=report,
        )
    for plan in plans:
        typer.echo(plan_table(plan))
    typer.echo(summary(out, manifest))


def bytes_of(text: str) -> int:
    """ "240MB" as bytes: kB, MB and GB are powers of 1,000, KiB, MiB and GiB of 1,024."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    unit = None if match is None else _UNITS.get(match[2].lower())
    if match is None or unit is None:
        raise typer.BadParameter(f"{text!r} is no size; expected a number with a unit, as 240MB")
    return round(float(match[1]) * unit)


def _wanted(
    precision: Precision, rounding: Rounding, size: int | None, quality: float | None
) -> Wanted | None:
    """What int4 weights are fitted for, None when they are not."""
    fitted = precision is Precision.INT4 and rounding is Rounding.FITTED
    if (size is not None or quality is not None) and not fitted:
        raise typer.BadParameter(
            "is for --precision int4 with weights that are fitted to text",
            param_hint="--size" if size is not None else "--quality",
        )
    return Wanted(size_bytes=size, quality=quality) if fitted else None


def summary(out: Path, manifest: Manifest) -> str:
    """A bundle that was written, in one line, and how it is run in another when the graph is
    another exporter's.
    """
    size = sum(record.bytes for record in manifest.files.values())
    parity = manifest.parity
    cache = ", int8 cache" if manifest.cache_dtype == "int8" else ""
    checked = (
        f"perplexity {parity['text']['ratio']:.4f} times torch's, top-1 agreement with torch "
        f"{parity['text']['compared']['top1']:.1%}"
        if parity
        else "not verified"
    )
    made = (
        f"{manifest.model_type}, {len(manifest.layers)} layers, {manifest.precision}{cache}, "
        f"{size / 1e6:,.1f} MB"
    )
    graph = "" if manifest.graph is None else f"\n{manifest.graph.to_text()}"
    return f"{out}: {made}; {checked}{graph}"
