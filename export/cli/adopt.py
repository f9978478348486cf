"""`edgeprefix export adopt`: a decoder that another exporter wrote becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprefix.export.adopt import adopt
from edgeprefix.export.cli.decoder import summary
from edgeprefix.export.cli.quality import AllowLoss, TextFile


def adopt_command(
    onnx_folder: Annotated[
        Path,
        typer.Argument(
            metavar="ONNX_FOLDER",
            help=(
                "Export of Optimum (text-generation-with-past), of transformers.js (graphs in "
                "onnx/), or of onnxruntime-genai."
            ),
        ),
    ],
    base: Annotated[
        str,
        typer.Option(
            "--base",
            metavar="BASE",
            help="The base that it was exported from: folder, GGUF file or hub id.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="Folder to write.")],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a base from the hub.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Which graph, such as model_q4.onnx. [default: model.onnx, or the only one]",
        ),
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Hard links instead of copies; same disk only.")
    ] = False,
    text: TextFile = None,
    allow_loss: AllowLoss = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
) -> None:
    """Make a bundle of an ONNX decoder that you already have; compared with torch before it is
    done.
    """
    manifest = adopt(
        onnx_folder,
        out,
        base=base,
        revision=revision,
        file=file,
        link=link,
        force=force,
        text=text,
        allow_loss=allow_loss,
    )
    typer.echo(summary(out, manifest))
