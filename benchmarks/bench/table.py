"""The reports of `bench` and `bench compare` as tables on a terminal."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeprefix.bench.compare import Comparison, Difference
from edgeprefix.bench.names import shown, title
from edgeprefix.bench.report import Measurement, Report
from edgeprefix.bench.spread import Number
from edgeprefix.page.units import rate_text, size_text, time_text

_STYLES = {"better": "green", "worse": "red", "noise": "dim"}


def print_report(console: Console, report: Report) -> None:
    """Warnings, the machine, then a table for each kind of number that was measured."""
    for warning in report.warnings:
        console.print(f"! {warning}", style="yellow", highlight=False)
    for line in machine_lines(report):
        console.print(line, style="dim", highlight=False)
    for table in (_decode(report), _prefill(report), _others(report), _memory(report)):
        if table.row_count:
            console.print()
            console.print(table)
    console.print(f"\n{rounds_line(report)}", style="dim", highlight=False)
    for reason in dict.fromkeys(reason for _, reason in report.skipped):
        cells = "; ".join(cell for cell, why in report.skipped if why == reason)
        console.print(f"skipped, {reason}: {cells}", style="dim", highlight=False)


def print_comparison(console: Console, found: Comparison, *, every: bool) -> None:
    """The differences that are more than noise, or all; then cautions."""
    for note in found.cautions:
        console.print(f"! {note}", style="yellow", highlight=False)
    for letter, report in (("A", found.a), ("B", found.b)):
        bundle = report.bundle
        console.print(
            f"{letter}  {bundle['base']} {bundle['precision']}, {report.machine['processor']}, "
            "edgeprefix "
            f"{report.versions['edgeprefix']}, onnxruntime "
            f"{report.versions.get('onnxruntime', '?')}, {report.created}",
            style="dim",
            highlight=False,
        )
    rows = [one for one in found.differences if every or one.verdict != "noise"]
    table = Table(title="B over A", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("what")
    for heading in ("A", "B", "ratio", "spread of the ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("B is")
    for one in rows:
        table.add_row(*_difference(one), style=_STYLES[one.verdict])
    if rows:
        console.print(table)
    console.print(verdict_line(found), highlight=False)
    for cell in found.only_one:
        console.print(f"not compared: {cell}", style="dim", highlight=False)


def verdict_line(found: Comparison) -> str:
    """How many numbers went which way."""
    counts = {
        verdict: sum(one.verdict == verdict for one in found.differences) for verdict in _STYLES
    }
    return (
        f"{len(found.differences)} numbers in both: B is better in {counts['better']}, worse in "
        f"{counts['worse']}; "
        f"{counts['noise']} are within noise ({found.noise:.0%}, or their spread)"
    )


def machine_lines(report: Report) -> list[str]:
    """Bundle and machine in three lines."""
    bundle, machine, settings = report.bundle, report.machine, report.settings
    lines = [
        f"{bundle['base']} {bundle['precision']}, {size_text(bundle['file_bytes'])}; a step reads "
        f"{size_text(bundle['weight_bytes_per_step'])} of weights",
        f"{machine['processor']}, {machine['cores']} cores ({machine['logical_cores']} logical), "
        f"{settings['threads']} threads, "
        f"{', '.join(machine['features']) or 'features unknown'}",
    ]
    if report.bandwidth:
        memory, weights = report.bandwidth["memory"], report.bandwidth["weights"]
        lines.append(
            f"memory bandwidth {memory.most / 1e9:.1f} GB/s; over as much as the weights take "
            f"{weights.most / 1e9:.1f} GB/s"
        )
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return [*lines, f"{versions}, {machine['system']}"]


def rounds_line(report: Report) -> str:
    """How it was measured."""
    facts = report.circumstances
    others = facts["others_during"]
    busy = "" if others is None else f", others used {others:.0%} of the cores meanwhile"
    return (
        f"{facts['rounds']} rounds after a warming one, in {facts['seconds']:.0f} s{busy}; spreads "
        "are quartiles of the rounds"
    )


def _decode(report: Report) -> Table:
    table = _table(
        "decoding",
        ("batch", "context", "tokens/s", "spread", "ms p50 / p90 / p99", "limit", "of it"),
    )
    for one in report.of("decode"):
        rate, limit = one.numbers["tokens_per_s"], one.limit_tokens_per_s
        ends = ("", "") if limit is None else (rate_text(limit), f"{rate.value / limit:.0%}")
        times = " / ".join(
            f"{one.numbers[f'token_ms_p{share}'].value:.3g}" for share in (50, 90, 99)
        )
        spread = _spread("tokens_per_s", rate)
        table.add_row(
            str(one.cell.batch),
            f"{one.cell.context:,}",
            rate_text(rate.value),
            spread,
            times,
            *ends,
        )
    return table


def _prefill(report: Report) -> Table:
    table = _table("prompts", ("tokens", "first token", "spread", "tokens/s", "spread"))
    for one in report.of("prefill"):
        first, rate = one.numbers["first_token_ms"], one.numbers["tokens_per_s"]
        table.add_row(
            f"{one.cell.prompt_tokens:,}", time_text(first.value), _spread("first_token_ms", first),
            rate_text(rate.value), _spread("tokens_per_s", rate),
        )  # fmt: skip
    return table


def _others(report: Report) -> Table:
    table = Table(title="and also", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("what")
    for heading in ("value", "spread"):
        table.add_column(heading, justify="right", no_wrap=True)
    for kind in ("cold_start", "prefix", "mixed", "instead_of_text", "threads"):
        for one in report.of(kind):
            _add_numbers(table, one)
    return table


def _add_numbers(table: Table, one: Measurement) -> None:
    table.add_row(Text(one.cell.label, style="bold"))
    for name, number in one.numbers.items():
        table.add_row(f"  {title(name)}", shown(name, number.value), _spread(name, number))


def _memory(report: Report) -> Table:
    names = {
        "files": "files of the bundle",
        "after_import": "peak after the import",
        "after_load": "peak with the bundle open",
        "peak": "peak, one sequence generated",
        "peak_full_batch": "peak, all of the bench in one process",
        "cache": "cache of that",
    }
    table = Table(title="memory and disk", title_justify="left", show_header=False, box=SIMPLE_HEAD)
    table.add_column()
    table.add_column(justify="right")
    for key, name in names.items():
        amount = report.memory.get(key)
        if amount is not None:
            table.add_row(name, size_text(amount))
    return table


def _table(name: str, headings: tuple[str, ...]) -> Table:
    table = Table(title=name, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _spread(name: str, number: Number) -> str:
    low, high = number.quartiles
    return f"{shown(name, low)} … {shown(name, high)}" if len(number.samples) > 1 else "one round"


def _difference(one: Difference) -> tuple[Any, ...]:
    return (
        f"{one.cell.label}: {title(one.name)}",
        shown(one.name, one.a),
        shown(one.name, one.b),
        f"{one.ratio:.2f}",
        f"{one.low:.2f} … {one.high:.2f}",
        "within noise" if one.verdict == "noise" else one.verdict,
    )
