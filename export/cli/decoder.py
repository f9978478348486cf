"""`edgeprefix export decoder`: a base becomes a bundle."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from edgeprefix.export.adopt.optimum import export_with_optimum
from edgeprefix.export.bundle import export_decoder
from edgeprefix.export.cli.progress import stage_bar
from edgeprefix.export.cli.quality import AllowLoss, TextFile
from edgeprefix.runtime.contracts.manifest import Manifest


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
                "With --cache int8: prefix files, a folder of them, or rows that the cache must "
                "hold; repeatable."
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
        if precision is not Precision.FP32 or cache or smoke or calibrate or text or allow_loss:
            raise typer.BadParameter(
                "goes with none of --precision, --cache, --calibrate, --text, --allow-loss, "
                "--smoke: Optimum writes fp32",
                param_hint="--backend optimum",
            )
        manifest = export_with_optimum(base, out, revision=revision, force=force)
        typer.echo(summary(out, manifest))
        return
    if calibrate and cache is None:
        raise typer.BadParameter("is for an int8 cache", param_hint="--calibrate")
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
            force=force,
            smoke=smoke,
            progress=report,
        )
    typer.echo(summary(out, manifest))


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
