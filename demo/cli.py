"""`edgeprefix demo`: progress bars all the way, then a table, where the files are, and what to type
next.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from edgeprefix.cli.terminal import terminal, text_column
from edgeprefix.demo.page import score_text
from edgeprefix.demo.pipeline import DemoOptions, run_demo
from edgeprefix.demo.stages import Advance, Watch
from edgeprefix.page.units import size_text, time_text

demo_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@demo_app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for rows, prefixes, bundles and report.")
    ] = Path("demo-report"),
    base: Annotated[
        str | None,
        typer.Option(
            help="Folder, GGUF file or hub id of another base; default is the embedded one."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option(help="Every stage, but too briefly to learn much.")
    ] = False,
    force: Annotated[bool, typer.Option(help="Replace OUT when it is there.")] = False,
    seed: Annotated[int, typer.Option(help="Chooses rows and training order.")] = 0,
) -> None:
    """The whole pipeline on the embedded base: train, export, run, with a report."""
    console = terminal()
    options = DemoOptions(out=out, base=base, seed=seed, quick=quick, force=force)
    try:
        with _progress(console) as bars:
            report = run_demo(options, watch=_watch(bars))
    except KeyboardInterrupt:
        typer.secho(
            f"stopped: {out} is as it was before; type the command again to start anew",
            fg="red",
            err=True,
        )
        raise typer.Exit(1) from None
    _show(console, report, out)


def _progress(console: Console) -> Progress:
    return Progress(
        text_column("{task.description:<16}"),
        BarColumn(bar_width=28),
        text_column("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        text_column("{task.fields[words]}", style="dim"),
        console=console,
    )


def _watch(bars: Progress) -> Watch:
    @contextlib.contextmanager
    def stage(name: str) -> Iterator[Advance]:
        bar = bars.add_task(name, total=1.0, words="")

        def advance(done: float, words: str) -> None:
            bars.update(bar, completed=done, words=words)

        yield advance
        bars.update(bar, completed=1.0)

    return stage


def _show(console: Console, report: dict[str, Any], out: Path) -> None:
    console.print()
    console.print(_table(report))
    console.print(_headline(report))
    console.print()
    lines = (
        f"Report  {out / 'report.html'}  (numbers: {out / 'report.json'})",
        f"Files   {out / 'prefixes'}, {out / 'bundles'}, {out / 'data'}",
        "",
        "Go on with",
        *(f"  {entry['command']}" for entry in report["commands"][:3]),
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _table(report: dict[str, Any]) -> Table:
    base = report["base"]
    table = Table(
        title=f"{base['name']}: {base['parameters'] / 1e6:.1f} M parameters, frozen",
        title_justify="left",
    )
    for heading in ("task", "metric"):
        table.add_column(heading)
    for heading in ("base alone", "with prefix", "prefix file", "trained in"):
        table.add_column(heading, justify="right")
    for task in report["tasks"]:
        before, after = (score_text(task["metric"], task[key]) for key in ("base", "prefix"))
        table.add_row(
            task["name"],
            "accuracy" if task["metric"] == "accuracy" else "BLEU",
            before,
            Text(after, style="bold"),
            size_text(task["prefix_bytes"]),
            f"{task['training']['seconds']:.0f} s",
        )
    return table


def _headline(report: dict[str, Any]) -> Text:
    equal = ("equal", "") if report["mixed_equals_alone"] else ("different", "red")
    swap = report["swap_ms"]
    return Text.assemble(
        f"{report['decode_tokens_per_s']:,.0f} tokens/s, first token after "
        f"{time_text(report['first_token_ms'])}, "
        f"prefix in place in {time_text(swap['p50'])} (p99 {time_text(swap['p99'])})\n"
        "mixed batch and alone: ",
        equal,
        f"; largest difference to torch {report['max_difference_to_torch']:.1e}; "
        f"all in {report['seconds']['total']:.0f} s",
    )
