"""`edgeprefix score`: classify rows by the likelihood of each label, and say how often that was right."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from edgeprefix.runtime.cli.common import (
    Bundle,
    MaxLength,
    PrefixFile,
    Providers,
    ResultFile,
    Template,
    Threads,
    open_engine,
    progress_bar,
)
from edgeprefix.runtime.contracts.rows import Row, read_rows
from edgeprefix.runtime.errors import DataError

score_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@score_app.command(name="score")
def score(
    bundle: Bundle,
    data: Annotated[Path, typer.Option("--data", help="Rows with input and target (the right label), JSONL or CSV.")],
    prefix: PrefixFile = None,
    labels: Annotated[str | None, typer.Option(help="Labels a,b,…; default: the task's own.")] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Subtract each label's score for an empty prompt.")
    ] = False,
    normalise: Annotated[bool, typer.Option("--normalise", help="Divide scores by the labels' lengths.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Rows with label and scores, JSONL.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
    template: Template = None,
    max_length: MaxLength = 1024,
    threads: Threads = None,
    providers: Providers = None,
) -> None:
    """Classify rows by label likelihood and print the accuracy."""
    rows = read_rows(data)
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    with (
        nullcontext() if out is None else ResultFile(out, resume=False, force=force) as results,
        open_engine(bundle, prefix, max_batch=1, max_length=max_length, threads=threads, providers=providers) as (
            engine,
            task,
        ),
        progress_bar() as progress,
    ):
        own = engine.task(task).pack.labels if task is not None else ()
        options = tuple(labels.split(",")) if labels is not None else own
        _require_targets(rows, options)
        for row in progress.track(rows, description="scoring"):
            scores = engine.score(
                row.fields, options, prefix=task, template=template, calibrate=calibrate, normalise=normalise
            )
            total[row["target"]] += 1
            right[row["target"]] += scores.best == row["target"]
            if results is not None:
                results.write({**row.fields, "label": scores.best, "scores": scores.by_option})
    _print(right, total, as_json=as_json)


def _require_targets(rows: list[Row], options: tuple[str, ...]) -> None:
    """A target that is no label can never be right: that is a mistake in the data or the labels."""
    wrong = [row for row in rows if options and row["target"] not in options]
    if wrong:
        raise DataError(
            f"{wrong[0].place}: target {wrong[0]['target']!r} is none of the labels {', '.join(options)}"
            f" ({len(wrong)} of {len(rows)} rows); give --labels or mend the rows"
        )


def _print(right: Counter[str], total: Counter[str], *, as_json: bool) -> None:
    accuracy = right.total() / total.total()
    if as_json:
        by_label = {label: {"right": right[label], "rows": total[label]} for label in sorted(total)}
        typer.echo(json.dumps({"accuracy": accuracy, "rows": total.total(), "labels": by_label}, ensure_ascii=False))
        return
    table = Table("label", "rows", "right", "accuracy")
    for label in sorted(total):
        table.add_row(label, str(total[label]), str(right[label]), f"{right[label] / total[label]:.3f}")
    Console().print(table)
    typer.echo(f"accuracy {accuracy:.4f} ({right.total()} of {total.total()} rows)")
