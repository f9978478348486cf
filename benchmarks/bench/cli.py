"""`edgeprefix bench BUNDLE`: what a bundle costs on this machine; `edgeprefix bench compare A.json
B.json`: two such results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TimeElapsedColumn
from typer.core import TyperGroup

from edgeprefix.bench.bench import Bench, Tell, on_cpu
from edgeprefix.bench.budget import parse_budget
from edgeprefix.bench.cells import Grid, Setup
from edgeprefix.bench.choose import Choice, choose, parse_sizes, thread_counts
from edgeprefix.bench.compare import NOISE, compare
from edgeprefix.bench.compare_page import render_comparison
from edgeprefix.bench.machine_card import machine_card
from edgeprefix.bench.page import render_report
from edgeprefix.bench.report import Report
from edgeprefix.bench.result import make_report
from edgeprefix.bench.table import print_comparison, print_report
from edgeprefix.bench.weight_bytes import weight_bytes_per_step
from edgeprefix.cli.common import Bundle, MaxBatch, PrefixFile, Providers, Threads, errors
from edgeprefix.cli.terminal import terminal, text_column
from edgeprefix.runtime.contracts.files import write_atomic
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.decoding.machine import physical_cores
from edgeprefix.runtime.errors import RequestError


class _MeasureOrCompare(TyperGroup):
    """`compare` is a command; whatever else comes first is what is to be measured, or an option of
    it.
    """

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        if args[:1] == ["compare"]:
            return super().make_context(info_name, args, parent, **extra)
        return self.commands["measure"].make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)


bench_app = typer.Typer(cls=_MeasureOrCompare, add_completion=False, pretty_exceptions_enable=False)

JsonOut = Annotated[
    Path | None, typer.Option("--json", help="Write the numbers to this file.", metavar="FILE")
]
HtmlOut = Annotated[
    Path | None,
    typer.Option("--html", help="Write a page with plots to this file.", metavar="FILE"),
]


@bench_app.command(
    name="measure", epilog="Two results side by side: edgeprefix bench compare A.json B.json"
)
def measure(
    bundle: Bundle,
    prefix: PrefixFile = None,
    out: JsonOut = None,
    html: HtmlOut = None,
    budget: Annotated[
        str, typer.Option(help="Time it may take: 60s, 5m, or none for no limit.")
    ] = "2m",
    prompt_tokens: Annotated[
        str, typer.Option(help="Lengths of prompts.", metavar="N,N,…")
    ] = "16,128,512,1024",
    contexts: Annotated[
        str, typer.Option(help="Contexts to decode at.", metavar="N,N,…")
    ] = "128,512,1024",
    batches: Annotated[
        str, typer.Option(help="Sequences decoded at once.", metavar="N,N,…")
    ] = "1,2,4,8",
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens decoded in a round.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Repetitions after a warming one.")] = 7,
    max_batch: MaxBatch = 8,
    threads: Threads = None,
    sweep: Annotated[
        str | None,
        typer.Option(help="Thread counts to try; default 1, 2, 4, … cores.", metavar="N,N,…"),
    ] = None,
    providers: Providers = None,
) -> None:
    """Measure latency, throughput and memory of a bundle on this machine."""
    with _usage_errors():
        budget_s = parse_budget(budget)
        sizes = {
            name: parse_sizes(text, f"--{name}")
            for name, text in (
                ("prompt-tokens", prompt_tokens),
                ("contexts", contexts),
                ("batches", batches),
            )
        }
        threads_tried = _sweep(sweep, threads, providers or [])
    manifest = Manifest.load(bundle)
    manifest.check_files(bundle)
    grid = Grid(
        prompts=sizes["prompt-tokens"],
        batches=tuple(
            sorted({size for size in sizes["batches"] if size <= max_batch} or {max_batch})
        ),
        contexts=sizes["contexts"],
        threads=threads_tried,
        new_tokens=new_tokens,
        prefix_positions=_prefix_positions(prefix, manifest),
    )
    choice = choose(grid, max_positions=manifest.max_positions, behind_prefix=prefix is not None)
    setup = Setup(
        bundle=bundle,
        prefix=prefix,
        threads=threads,
        providers=tuple(providers or ()),
        max_batch=max(grid.batches),
        max_length=choice.max_length,
        new_tokens=new_tokens,
        prefix_positions=grid.prefix_positions,
    )
    report = _measured(setup, choice, manifest, rounds=rounds, budget_s=budget_s)
    print_report(terminal(), report)
    _write(
        {out: report.save, html: lambda path: write_atomic(path, render_report(report).encode())}
    )
    if not report.complete:
        raise typer.Exit(1)


@bench_app.command(name="compare")
def compare_command(
    a: Annotated[
        Path, typer.Argument(help="What `edgeprefix bench --json` wrote.", metavar="A.json")
    ],
    b: Annotated[Path, typer.Argument(help="Another machine's or version's.", metavar="B.json")],
    out: JsonOut = None,
    html: HtmlOut = None,
    noise: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Differences up to this share count as noise.")
    ] = NOISE,
    every: Annotated[bool, typer.Option("--all", help="Also list what is within noise.")] = False,
) -> None:
    """Compare two results: B over A, with its spread, and which differences are more than noise."""
    found = compare(Report.load(a), Report.load(b), noise=noise)
    print_comparison(terminal(), found, every=every)
    _write(
        {out: found.save, html: lambda path: write_atomic(path, render_comparison(found).encode())}
    )


def _measured(
    setup: Setup, choice: Choice, manifest: Manifest, *, rounds: int, budget_s: float | None
) -> Report:
    """Runs the bench under a progress bar; Ctrl-C ends it, and what was measured is kept."""
    card, weight_bytes = machine_card(), weight_bytes_per_step(setup.bundle)
    bench = Bench(setup, choice.cells, rounds=rounds, budget_s=budget_s, weight_bytes=weight_bytes)
    try:
        with _progress() as tell:
            bench.run(tell)
    except KeyboardInterrupt:
        if not bench.findings.collector.cells:
            errors.print(
                "stopped before anything was measured; nothing was written", style="yellow"
            )
            raise typer.Exit(1) from None
        errors.print("stopped; what was measured so far is kept", style="yellow")
    settings = {
        "budget_s": budget_s,
        "rounds": rounds,
        "new_tokens": setup.new_tokens,
        "max_batch": setup.max_batch,
        "max_length": setup.max_length,
        "threads": setup.threads or physical_cores(),
        "providers": list(setup.providers),
        "prefix": None if setup.prefix is None else setup.prefix.name,
        "prefix_positions": setup.prefix_positions,
    }
    return make_report(
        bench.findings,
        setup,
        manifest,
        weight_bytes=weight_bytes,
        card=card,
        settings=settings,
        cells=choice.cells,
        unfit=choice.unfit,
    )


@contextmanager
def _usage_errors() -> Iterator[None]:
    """What cannot be read of the command line is wrong usage: exit code 2."""
    try:
        yield
    except RequestError as error:
        raise typer.BadParameter(str(error)) from error


def _sweep(text: str | None, threads: int | None, providers: list[str]) -> tuple[int, ...]:
    """Thread counts to try: none on a device, or when the user has chosen a number."""
    if text is not None:
        return parse_sizes(text, "--sweep")
    return () if threads is not None or not on_cpu(providers) else thread_counts(physical_cores())


def _prefix_positions(prefix: Path | None, manifest: Manifest) -> int:
    """The given prefix's length, or that of those to be generated."""
    if prefix is None:
        return min(Grid.prefix_positions, max(manifest.max_positions // 8, 1))
    found = Prefix.load(prefix)
    manifest.base.require_same(found.base, what=f"prefix {prefix}")
    return found.length


def _write(wanted: Mapping[Path | None, Callable[[Path], None]]) -> None:
    """Writes the files that were asked for."""
    for path, save in wanted.items():
        if path is not None:
            save(path)
            errors.print(f"wrote {path}", style="dim", highlight=False)


@contextmanager
def _progress() -> Iterator[Tell]:
    """A bar on stderr with what is being measured, silent when that is no terminal."""
    columns = (
        BarColumn(bar_width=28),
        text_column("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        text_column(style="dim"),
    )
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bars:
        bar = bars.add_task("starting", total=1.0)
        yield lambda done, words: bars.update(bar, completed=done, description=words)
