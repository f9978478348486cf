"""`edgeprefix export prefix`: what was trained, here or with PEFT, becomes a prefix file, or a file
of another runtime's.
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from edgeprefix.export.formats.writers import FORMATS, write_prefix
from edgeprefix.export.peft import is_adapter
from edgeprefix.export.prefix import read_prefix, require_bundle, require_other_file
from edgeprefix.runtime.contracts.prompt import unescaped


class Format(enum.StrEnum):
    """What is written."""

    EDGEPREFIX = "edgeprefix"
    PEFT = "peft"
    ONNX_ADAPTER = "onnx-adapter"
    LLAMA_CPP = "llama.cpp"
    OPENVINO = "openvino"


class PrefixDtype(enum.StrEnum):
    """Precision of a prefix file."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


def prefix_command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|PEFT_ADAPTER|FILE",
            help=(
                "Folder that `edgeprefix train` or PEFT's save_pretrained() wrote, or a prefix "
                "file."
            ),
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="File to write (peft: folder).")
    ],
    base: Annotated[
        str | None,
        typer.Option(
            metavar="BASE",
            help="Check that the prefix belongs to this base; a PEFT adapter names one itself.",
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a base from the hub.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="BUNDLE",
            help="Check that this bundle can hold it: its base, and what its int8 cache reaches.",
        ),
    ] = None,
    format: Annotated[  # noqa: A002  # the option's name
        Format, typer.Option("--format", help="For which runtime: see docs/formats.md.")
    ] = Format.EDGEPREFIX,
    dtype: Annotated[
        PrefixDtype | None,
        typer.Option(
            help="Precision of keys and values in the file; by default fp32, for llama.cpp fp16."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the task; by default as trained, of a PEFT adapter the folder's name.",
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="TEMPLATE", help='Prompt template, such as "{input}\\n"; by default as trained.'
        ),
    ] = None,
    task_id: Annotated[
        int | None,
        typer.Option(metavar="N", help="Which task of a PEFT multitask adapter, from 0."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing PEFT folder.")
    ] = False,
) -> None:
    """Write the best prefix of a training run, a PEFT adapter or a prefix file for this runtime or
    another.
    """
    template = None if prompt is None else unescaped(prompt)
    require_other_file(run, out)
    prefix = read_prefix(
        run, base=base, revision=revision, task=task, prompt=template, task_id=task_id
    )
    chosen = FORMATS[format.value] if dtype is None else dtype.value
    if bundle is not None:
        require_bundle(prefix, bundle)
    write_prefix(
        prefix, out, format=format.value, dtype=chosen, base=base, revision=revision, force=force
    )
    typer.echo(
        f"{out}: {_kind(format)}, task {prefix.name}, {prefix.length} positions, base "
        f"{prefix.base}, {_bytes(out):,} bytes"
    )
    if prompt is None and is_adapter(run):
        typer.echo(
            f"prompt template {prefix.pack.prompt!r}: an adapter does not say what stood around "
            "its inputs in training; "
            'name it with --prompt "…{input}…"',
            err=True,
        )


def _kind(format: Format) -> str:  # noqa: A002
    return "prefix file" if format is Format.EDGEPREFIX else format.value


def _bytes(out: Path) -> int:
    files = out.iterdir() if out.is_dir() else [out]
    return sum(file.stat().st_size for file in files)
