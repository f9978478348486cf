"""`edgeprefix score`: classify rows by the likelihood of each label, and say how often that was
right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from edgeprefix.cli.common import (
    Bundle,
    MaxBatch,
    MaxLength,
    PrefixFile,
    Providers,
    Template,
    Threads,
    TrustedKeyFiles,
    open_engine,
    progress_bar,
)
from edgeprefix.cli.results import (
    ERROR,
    Failures,
    ResultFile,
    describe_job,
    require_free,
    served,
)
from edgeprefix.cli.rows import Row, read_rows
from edgeprefix.cli.terminal import print_json, terminal
from edgeprefix.runtime.contracts.prompt import template_fields
from edgeprefix.runtime.engine import Engine
from edgeprefix.runtime.engine.prepare import AS_IT_IS
from edgeprefix.runtime.engine.score_request import ScoreRequest
from edgeprefix.runtime.errors import DataError
from edgeprefix.runtime.scoring.scores import Scores

score_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_FEW = 12  # labels whose confusion still fits a terminal


@dataclass(frozen=True, kw_only=True)
class _Job:
    """How rows are scored."""

    task: str | None
    options: tuple[str, ...]
    template: str | None
    calibrate: bool
    normalise: bool


@score_app.command(name="score")
def score(
    bundle: Bundle,
    data: Annotated[
        Path,
        typer.Option("--data", help="Rows with input and target (the right label), JSONL or CSV."),
    ],
    prefix: PrefixFile = None,
    labels: Annotated[
        str | None, typer.Option(help="Labels a,b,…; default: the task's own.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Subtract each label's score for an empty prompt.")
    ] = False,
    normalise: Annotated[
        bool, typer.Option("--normalise", help="Divide scores by the labels' lengths.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Rows with label and scores, JSONL.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="With --out: go on where an interrupted run ended.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing --out.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object.")
    ] = False,
    template: Template = None,
    max_batch: MaxBatch = 8,
    max_length: MaxLength = 1024,
    threads: Threads = None,
    providers: Providers = None,
    require_signature: TrustedKeyFiles = None,
) -> None:
    """Classify rows by label likelihood and print the accuracy.

    Rows and labels share the batch; each row's text is computed once for all labels. Up to a dozen
    labels are also shown as a table of confusions.
    """
    if resume and out is None:
        raise typer.BadParameter("--resume needs --out")
    rows = read_rows(data)
    facts = describe_job(
        bundle, prefix, rows,
        labels=labels, template=template, calibrate=calibrate, normalise=normalise,
    )  # fmt: skip
    if out is not None:
        require_free(rows, ("label", "scores"))
    with (
        nullcontext()
        if out is None
        else ResultFile(out, resume=resume, force=force, job=facts) as results,
        # Steady: a label's score must not depend on which rows happen to be scored beside it.
        open_engine(
            bundle,
            prefix,
            max_batch=max_batch,
            max_length=max_length,
            threads=threads,
            providers=providers,
            trusted_keys=require_signature,
            steady=True,
        ) as (engine, task),
    ):
        own = engine.task(task).pack.labels if task is not None else ()
        options = tuple(labels.split(",")) if labels is not None else own
        _require_targets(rows, options)
        job = _Job(
            task=task, options=options, template=template, calibrate=calibrate, normalise=normalise
        )
        failures = Failures([] if results is None else results.done_of(rows))
        counts = Counter(_scored(engine, rows, results, job, failures))
    _print(counts, failed=len(failures), as_json=as_json)
    failures.tell(len(rows))


def _scored(
    engine: Engine, rows: list[Row], results: ResultFile | None, job: _Job, failures: Failures
) -> Iterator[tuple[str, str]]:
    """(right label, label found) of each row that can be scored; those of an interrupted run come
    from its file.
    """
    done = [] if results is None else results.done_of(rows)
    yield from ((row["target"], found["label"]) for row, found in done if ERROR not in found)
    template = job.template or (AS_IT_IS if job.task is None else engine.task(job.task).pack.prompt)

    def score(good: Iterator[Row]) -> Iterator[tuple[int, Scores | Exception]]:
        requests = (
            ScoreRequest(
                row.fields, job.options, task=job.task, template=job.template,
                calibrate=job.calibrate, normalise=job.normalise,
            )
            for row in good
        )  # fmt: skip
        return engine.submit_each(requests, return_exceptions=True)

    with progress_bar() as progress:
        bar = progress.add_task("scoring", total=len(rows), completed=len(done))
        for row, outcome in served(rows[len(done) :], template_fields(template), score):
            facts: dict[str, Any]
            if isinstance(outcome, str):
                failures.add(row, outcome)
                facts = {ERROR: outcome}
            else:
                facts = {"label": outcome.best, "scores": outcome.by_option}
                yield row["target"], outcome.best
            if results is not None:
                results.write({**row.content, **facts})
            progress.advance(bar)
    failures.require_some(len(rows))


def _require_targets(rows: list[Row], options: tuple[str, ...]) -> None:
    """A target that is no label can never be right: that is a mistake in the data or the labels."""
    wrong = [row for row in rows if options and row["target"] not in options]
    if wrong:
        raise DataError(
            f"{wrong[0].place}: target {wrong[0]['target']!r} is none of the labels "
            f"{', '.join(options)}"
            f" ({len(wrong)} of {len(rows)} rows); give --labels or mend the rows"
        )


def _print(counts: Counter[tuple[str, str]], *, failed: int, as_json: bool) -> None:
    labels = sorted({label for pair in counts for label in pair})
    rows = {label: sum(counts[label, found] for found in labels) for label in labels}
    total, right = counts.total(), sum(counts[label, label] for label in labels)
    if as_json:
        facts = {
            "accuracy": right / total,
            "rows": total,
            "failed": failed,
            "labels": {
                label: {"right": counts[label, label], "rows": rows[label]}
                for label in labels
                if rows[label]
            },
            "confusion": {
                a: {b: counts[a, b] for b in labels if counts[a, b]} for a in labels if rows[a]
            },
        }
        print_json(facts)
        return
    terminal().print(_table(counts, labels, rows))
    typer.echo(f"accuracy {right / total:.4f} ({right} of {total} rows)")


def _table(counts: Counter[tuple[str, str]], labels: list[str], rows: dict[str, int]) -> Table:
    """A line for each right label; for few labels also how often each was found in its place."""
    found = labels if len(labels) <= _FEW else []
    table = Table("right label", "rows", "right", "accuracy", *(f"→ {label}" for label in found))
    for label in labels:
        if rows[label]:
            hits = counts[label, label]
            cells = (str(counts[label, other]) if counts[label, other] else "·" for other in found)
            table.add_row(label, str(rows[label]), str(hits), f"{hits / rows[label]:.3f}", *cells)
    return table
