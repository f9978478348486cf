"""`edgeprefix run`: generate text for one prompt, streamed to the terminal, or for a file
of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeprefix.cli.common import (
    Bundle,
    MaxBatch,
    MaxLength,
    PrefixFile,
    Providers,
    Template,
    Threads,
    TrustedKeyFiles,
    errors,
    open_engine,
    progress_bar,
    read_standard_input,
)
from edgeprefix.cli.flags import flags_from
from edgeprefix.cli.results import (
    ERROR,
    Failures,
    ResultFile,
    describe_job,
    require_free,
    served,
)
from edgeprefix.cli.rows import Row, read_rows
from edgeprefix.cli.terminal import print_json
from edgeprefix.runtime.contracts.prompt import template_fields, unescaped
from edgeprefix.runtime.engine import Engine
from edgeprefix.runtime.engine.prepare import AS_IT_IS
from edgeprefix.runtime.engine.requests import Request
from edgeprefix.runtime.generation.options import GenerationOptions, Settings
from edgeprefix.runtime.work.completion import Completion

run_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@run_app.command(name="run")
@flags_from(settings=GenerationOptions)
def run(
    bundle: Bundle,
    prefix: PrefixFile = None,
    text: Annotated[
        str | None, typer.Option("--input", help="The prompt; '-' reads it from standard input.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Rows to generate for, JSONL or CSV.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="With --data: rows with their output, JSONL.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="With --out: go on where an interrupted run ended.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing --out.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --input: print the whole completion as JSON.")
    ] = False,
    template: Template = None,
    *,
    settings: Settings,
    max_batch: MaxBatch = 8,
    max_length: MaxLength = 1024,
    threads: Threads = None,
    providers: Providers = None,
    require_signature: TrustedKeyFiles = None,
) -> None:
    """Generate text with a bundle and a prefix.

    Either --input, streamed to the terminal, or --data with --out, in batches with a progress bar.
    """
    if (text is None) == (data is None):
        raise typer.BadParameter("give either --input or --data")
    if (data is None) != (out is None):
        raise typer.BadParameter("--data and --out go together")
    if data is not None and "logprobs" in settings:
        raise typer.BadParameter("--logprobs are for --input with --json")
    if "stop" in settings:
        settings = {**settings, "stop": tuple(map(unescaped, settings["stop"]))}
    text = read_standard_input("--input TEXT") if text == "-" else text
    rows = [] if data is None else read_rows(data, required=())
    require_free(rows, ("output", "finish_reason", "others"))
    job = (
        None
        if data is None
        else describe_job(bundle, prefix, rows, template=template, settings=settings)
    )
    with (
        nullcontext()
        if out is None
        else ResultFile(out, resume=resume, force=force, job=job) as results,
        open_engine(
            bundle,
            prefix,
            max_batch=max_batch,
            max_length=max_length,
            threads=threads,
            providers=providers,
            trusted_keys=require_signature,
        ) as (engine, task),
    ):
        if results is not None:
            failures = _run_rows(engine, task, rows, results, template=template, settings=settings)
        elif text is not None:
            _run_text(engine, task, text, as_json=as_json, template=template, settings=settings)
    if results is not None:
        errors.print(f"{len(rows)} rows written to {out}", style="green")
        failures.tell(len(rows))


def _run_text(
    engine: Engine,
    task: str | None,
    prompt: str,
    *,
    as_json: bool,
    template: str | None,
    settings: Settings,
) -> None:
    if as_json or settings.get("beams", 1) > 1 or settings.get("n", 1) > 1:
        completion = engine.generate(prompt, task=task, template=template, **settings)
        if as_json:
            print_json(_described(engine, completion))
            return
        for one in (completion, *completion.alternatives):
            typer.echo(one.text)
        return
    with engine.stream(prompt, task=task, template=template, **settings) as stream:
        for piece in stream:
            typer.echo(piece.text, nl=False)
    typer.echo()


def _described(engine: Engine, completion: Completion) -> dict[str, Any]:
    """A completion as JSON values."""
    facts: dict[str, Any] = {
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "tokens": len(completion.tokens),
        "prompt_tokens": completion.prompt_tokens,
        "first_token_ms": round(completion.timings.first_token_ms, 2),
        "tokens_per_s": round(completion.timings.tokens_per_s(len(completion.tokens)), 1),
    }
    if completion.score is not None:
        facts["score"] = completion.score
    if completion.logprobs is not None:
        text = engine.tokenizer.token_text
        facts["logprobs"] = [
            {
                "token": text(one.token),
                "logprob": one.logprob,
                "top": [[text(token), value] for token, value in one.top],
            }
            for one in completion.logprobs
        ]
    if completion.alternatives:
        facts["alternatives"] = [_described(engine, other) for other in completion.alternatives]
    return facts


def _run_rows(
    engine: Engine,
    task: str | None,
    rows: list[Row],
    results: ResultFile,
    *,
    template: str | None,
    settings: Settings,
) -> Failures:
    """Generates for each row that is not done yet; one that cannot be served gets its error."""
    failures = Failures(results.done_of(rows))
    names = template_fields(_template(engine, task, template))

    def generate(good: Iterator[Row]) -> Iterator[tuple[int, Completion | Exception]]:
        requests = (Request(row.fields, task=task, template=template, **settings) for row in good)
        return engine.generate_each(requests, return_exceptions=True)

    with progress_bar() as progress:
        bar = progress.add_task("generating", total=len(rows), completed=results.done)
        for row, outcome in served(rows[results.done :], names, generate):
            if isinstance(outcome, str):
                failures.add(row, outcome)
                results.write({**row.content, ERROR: outcome})
            else:
                results.write({**row.content, **_output(outcome)})
            progress.advance(bar)
    failures.require_some(len(rows))
    return failures


def _template(engine: Engine, task: str | None, template: str | None) -> str:
    """What a row's fields fill: the task's template; a bare base without --template gets the field
    `input`.
    """
    if template is not None:
        return template
    return AS_IT_IS if task is None else engine.task(task).pack.prompt


def _output(completion: Completion) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "output": completion.text,
        "finish_reason": completion.finish_reason,
    }
    if completion.alternatives:
        facts["others"] = [other.text for other in completion.alternatives]
    return facts
