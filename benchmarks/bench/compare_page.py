"""Two benches side by side as one HTML page: what differs as a plot of ratios, then every
number.
"""

from __future__ import annotations

from html import escape

from edgeprefix.bench.compare import Comparison, Difference
from edgeprefix.bench.names import more_is_better, shown, title
from edgeprefix.bench.page import machine_facts
from edgeprefix.bench.report import Report
from edgeprefix.page.charts import Interval, intervals
from edgeprefix.page.document import document, facts, side_by_side, tile

_PLOTTED = {
    "decode": "tokens_per_s",
    "prefill": "first_token_ms",
    "cold_start": "total_ms",
    "prefix": "swap_ms_p50",
    "mixed": "mixed_tokens_per_s",
    "instead_of_text": "with_prefix_ms",
    "threads": "tokens_per_s",
}
_STYLES = {"better": "prefix", "worse": "third", "noise": "base"}


def render_comparison(found: Comparison) -> str:
    """The whole page."""
    body = "\n".join(
        (
            _header(found),
            _cautions(found),
            _tiles(found),
            _plot(found),
            _table(found),
            _machines(found),
        )
    )
    footer = "This page is drawn from two benches' JSON and loads nothing from elsewhere."
    return document(f"edgeprefix bench: {_name(found.a)} and {_name(found.b)}", body, footer=footer)


def _header(found: Comparison) -> str:
    lead = (
        f"A: {_name(found.a)}, {found.a.created}. B: {_name(found.b)}, {found.b.created}. Ratios "
        "are B over A with the "
        f"spread that the rounds of both give; what touches 1 within {found.noise:.0%} counts as "
        "noise."
    )
    return (
        "<p class='eyebrow'>edgeprefix bench compare</p><h1>B against A</h1><p "
        f"class='lead'>{escape(lead)}</p>"
    )


def _cautions(found: Comparison) -> str:
    return "".join(f"<p class='warn'>{escape(note)}</p>" for note in found.cautions)


def _tiles(found: Comparison) -> str:
    counts = {
        verdict: sum(one.verdict == verdict for one in found.differences) for verdict in _STYLES
    }
    tiles = (
        tile(
            str(counts["better"]),
            "",
            "numbers in which B is better",
            "good" if counts["better"] else "",
        ),
        tile(
            str(counts["worse"]),
            "",
            "numbers in which B is worse",
            "bad" if counts["worse"] else "",
        ),
        tile(str(counts["noise"]), "", "numbers within noise"),
    )
    return f"<div class='grid tiles'>{''.join(tiles)}</div>"


def _plot(found: Comparison) -> str:
    rows = [_interval(one) for one in found.differences if one.name == _PLOTTED[one.cell.kind]]
    half = (len(rows) + 1) // 2
    note = (
        "How many times as fast B is, on a logarithmic scale: to the right of the line B is "
        "faster; grey is within noise."
    )
    plots = [
        intervals(part, title="speed of B over A", left="A faster", right="B faster")
        for part in (rows[:half], rows[half:])
        if part
    ]
    cards = "".join(
        f"<section style='margin-bottom:16px'><div class='card'>{plot}</div></section>"
        for plot in plots
    )
    return f"<h2>Speed</h2><p class='note'>{note}</p><div class='grid pair'>{cards}</div>"


def _interval(one: Difference) -> Interval:
    """As speed: the ratio of times is turned around."""
    value, low, high = one.ratio, one.low, one.high
    if not more_is_better(one.name):
        value, low, high = 1 / value, 1 / high, 1 / low
    return Interval(one.cell.label, value, low, high, f"{value:.2f} ×", _STYLES[one.verdict])


def _table(found: Comparison) -> str:
    rows = "".join(_row(one) for one in found.differences)
    left_out = "".join(
        f"<p class='small'>Not compared: {escape(cell)}</p>" for cell in found.only_one
    )
    return (
        "<h2>Every number</h2><div class='card scroll'><table><tr><th>what</th><th "
        "class='number'>A</th><th class='number'>B</th>"
        "<th class='number'>B over A</th><th class='number'>spread of the ratio</th><th>B "
        "is</th></tr>"
        f"{rows}</table></div>{left_out}"
    )


def _row(one: Difference) -> str:
    words = {
        "better": "<span class='ok'>better</span>",
        "worse": "<span class='wrong'>worse</span>",
        "noise": "within noise",
    }
    cells = (
        shown(one.name, one.a),
        shown(one.name, one.b),
        f"{one.ratio:.3f}",
        f"{one.low:.3f} … {one.high:.3f}",
    )
    numbers = "".join(f"<td class='number'>{escape(cell)}</td>" for cell in cells)
    what = f"{escape(one.cell.label)}: {escape(title(one.name))}"
    return f"<tr><td>{what}</td>{numbers}<td>{words[one.verdict]}</td></tr>"


def _machines(found: Comparison) -> str:
    return side_by_side(
        f"<h2>Machine A</h2>{facts(machine_facts(found.a))}",
        f"<h2>Machine B</h2>{facts(machine_facts(found.b))}",
    )


def _name(report: Report) -> str:
    return f"{report.bundle['base']} {report.bundle['precision']} on {report.machine['processor']}"
