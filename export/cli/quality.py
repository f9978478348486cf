"""Options of every command that judges a bundle on text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TextFile = Annotated[
    Path | None,
    typer.Option(
        "--text",
        metavar="FILE",
        help="Text, or rows (JSONL, CSV), to measure perplexity on. [default: drawn from the base]",
    ),
]
AllowLoss = Annotated[
    float | None,
    typer.Option(
        "--allow-loss",
        min=1.0,
        metavar="FACTOR",
        help=(
            "What the bundle's perplexity may be, times torch's. [default: fp32 1.0001, fp16 "
            "1.002, int8 and as-stored 1.02, int4 1.1]"
        ),
    ),
]
