"""A bench as one HTML page with plots; drawn from the report alone, so that a result from elsewhere
can be looked at too.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from edgeprefix.bench.names import shown, title
from edgeprefix.bench.report import Measurement, Report
from edgeprefix.bench.spread import Number
from edgeprefix.page.charts import Bar, Series, bars, curves, log_bars, stacked
from edgeprefix.page.document import document, facts, side_by_side, tile
from edgeprefix.page.units import number_and_unit, rate_text, size_text, time_text

_STYLES = ("prefix", "third", "fourth", "base")


def render_report(report: Report) -> str:
    """The whole page."""
    sections = (
        _header,
        _warnings,
        _tiles,
        _speed,
        _latency,
        _starts,
        _tasks,
        _table,
        _machine,
        _skipped,
    )
    body = "\n".join(section(report) for section in sections)
    drawn = "This page is drawn from the bench's JSON and loads nothing from elsewhere."
    footer = f"edgeprefix {report.versions['edgeprefix']}. {drawn}"
    return document(
        f"edgeprefix bench: {report.bundle['base']} {report.bundle['precision']}",
        body,
        footer=footer,
    )


def machine_facts(report: Report) -> dict[str, str]:
    """The machine card in words."""
    machine = report.machine
    cache, memory = machine["last_level_cache_bytes"], machine["memory_bytes"]
    rows = {
        "Processor": machine["processor"],
        "Cores": (
            f"{machine['cores']} physical, {machine['logical_cores']} logical; "
            f"{report.settings['threads']} threads used"
        ),
        "Features": ", ".join(machine["features"]) or "unknown",
        "Last cache": size_text(cache) if cache else "unknown",
        "Memory": size_text(memory) if memory else "unknown",
        "Bandwidth": _bandwidth(report),
        "Governor": machine["governor"] or "not told",
        "Load at start": "not told"
        if machine["load_average"] is None
        else str(machine["load_average"]),
        "Others": _company(report),
        "System": machine["system"],
        "Versions": ", ".join(f"{name} {version}" for name, version in report.versions.items()),
    }
    return {name: str(value) for name, value in rows.items()}


def _header(report: Report) -> str:
    bundle, settings, found = report.bundle, report.settings, report.circumstances
    prefix = f" Prompts stand behind the prefix {settings['prefix']}." if settings["prefix"] else ""
    lead = (
        f"{bundle['layers']} layers, {size_text(bundle['file_bytes'])} on disk, of which a "
        "decoding step reads "
        f"{size_text(bundle['weight_bytes_per_step'])}. Measured on {report.machine['processor']} "
        "with "
        f"{settings['threads']} threads: {found['rounds']} rounds "
        f"over everything in turn, after one to warm up, in {found['seconds']:.0f} s.{prefix}"
    )
    return (
        f"<p class='eyebrow'>edgeprefix bench, {escape(report.created)}</p>"
        f"<h1>{escape(bundle['base'])}, {escape(bundle['precision'])}</h1><p "
        f"class='lead'>{escape(lead)}</p>"
    )


def _warnings(report: Report) -> str:
    return "".join(f"<p class='warn'>{escape(warning)}</p>" for warning in report.warnings)


def _tiles(report: Report) -> str:
    tiles = []
    if one := report.decode:
        tiles.append(
            tile(
                rate_text(one.numbers["tokens_per_s"].value),
                "tokens/s",
                f"decoded, batch {one.cell.batch}",
            )
        )
    if (one := report.decode_full) and one is not report.decode:
        tiles.append(
            tile(
                rate_text(one.numbers["tokens_per_s"].value),
                "tokens/s",
                f"decoded, batch {one.cell.batch}",
            )
        )
    if one := report.first_token:
        first = time_text(one.numbers["first_token_ms"].value)
        tiles.append(
            tile(
                *number_and_unit(first),
                f"to the first token of a prompt of {one.cell.prompt_tokens}",
            )
        )
    if one := report.find("prefix"):
        swap = time_text(one.numbers["swap_ms_p50"].value)
        tiles.append(tile(*number_and_unit(swap), "to put another task's prefix in place"))
    if one := report.find("cold_start"):
        start = time_text(one.numbers["total_ms"].value)
        tiles.append(tile(*number_and_unit(start), "from nothing to the first token"))
    if peak := report.memory.get("peak"):
        tiles.append(tile(*number_and_unit(size_text(peak)), "most memory that one sequence took"))
    return f"<div class='grid tiles'>{''.join(tiles)}</div>"


def _speed(report: Report) -> str:
    return side_by_side(_decode(report), _prefill(report))


def _decode(report: Report) -> str:
    found = report.of("decode")
    contexts = sorted({one.cell.context or 0 for one in found})
    series, labels = [], []
    for style, context in zip(_STYLES, contexts, strict=False):
        rows = [one for one in found if one.cell.context == context]
        rates = [one.numbers["tokens_per_s"] for one in rows]
        points = [(one.cell.batch or 1, rate.value) for one, rate in zip(rows, rates, strict=True)]
        series.append(
            Series(
                f"context {context}",
                points,
                style,
                dots=True,
                spread=[(r.least, r.most) for r in rates],
            )
        )
        labels.append((style, f"context {context:,}"))
    rows = [one for one in found if one.cell.context == contexts[0]] if contexts else []
    limits = [
        (one.cell.batch or 1, one.limit_tokens_per_s) for one in rows if one.limit_tokens_per_s
    ]
    most = max((y for line in series for _, y in line.points), default=0)
    # A limit far above would flatten everything else
    if limits and min(limit for _, limit in limits) <= 2 * most:
        series.append(Series("limit", [point for point in limits if point[1] <= 2 * most], "soft"))
        labels.append(("soft", f"bandwidth limit, context {contexts[0]:,}"))
    chart = curves(
        series,
        x_label="sequences at once",
        title="decoded tokens a second over batch sizes",
        even=True,
    )
    note = (
        "Tokens/s of all sequences together; the shade reaches from the slowest to the fastest "
        "round."
    )
    return (
        f"<h2>Decoding</h2><p class='note'>{note}</p><div "
        f"class='card'>{_legend(labels)}{chart}</div>"
    )


def _prefill(report: Report) -> str:
    found = report.of("prefill")
    first = [one.numbers["first_token_ms"] for one in found]
    points = [
        (one.cell.prompt_tokens or 0, number.value)
        for one, number in zip(found, first, strict=True)
    ]
    line = Series(
        "first token", points, "third", dots=True, spread=[(n.least, n.most) for n in first]
    )
    chart = curves(
        [line],
        x_label="tokens of the prompt",
        title="milliseconds to the first token over prompt lengths",
    )
    best = max(found, key=lambda one: one.numbers["tokens_per_s"].value, default=None)
    rate = (
        ""
        if best is None
        else f" At best {rate_text(best.numbers['tokens_per_s'].value)} prompt tokens/s."
    )
    return (
        "<h2>First token</h2><p class='note'>Milliseconds until it comes, by the length of the "
        f"prompt.{rate}</p>"
        f"<div class='card'>{_legend([('third', 'milliseconds')])}{chart}</div>"
    )


def _latency(report: Report) -> str:
    rows: list[Bar] = []
    for style, one in {"prefix": report.decode, "third": report.decode_full}.items():
        if one is not None and not (style == "third" and one is report.decode):
            rows += _token_bars(one, style)
    chart = bars(
        rows,
        most=max((row.value for row in rows), default=1),
        title="milliseconds a token, percentiles",
    )
    left = (
        "<h2>Each token</h2><p class='note'>Milliseconds between one token and the next, as the "
        "caller sees them; the stroke "
        f"reaches from one round's to another's.</p><div class='card'>{chart}</div>"
    )
    return side_by_side(left, _threads(report)) if rows else _threads(report)


def _token_bars(one: Measurement, style: str) -> list[Bar]:
    names = {"token_ms_p50": "median", "token_ms_p90": "p90", "token_ms_p99": "p99"}
    return [
        _time_bar(f"batch {one.cell.batch}, {words}", one.numbers[name], style)
        for name, words in names.items()
    ]


def _threads(report: Report) -> str:
    found = report.of("threads")
    if not found:
        return ""
    names = (
        ("tokens_per_s", "prefix", "one sequence"),
        ("batch_tokens_per_s", "third", f"batch {found[0].cell.batch}"),
    )
    series = []
    for name, style, label in names:
        rates = [one.numbers[name] for one in found]
        points = [
            (one.cell.threads or 1, rate.value) for one, rate in zip(found, rates, strict=True)
        ]
        series.append(
            Series(
                label, points, style, dots=True, spread=[(rate.least, rate.most) for rate in rates]
            )
        )
    chart = curves(
        series, x_label="threads", title="decoded tokens a second over threads", even=True
    )
    legend = _legend([(style, label) for _, style, label in names])
    return (
        "<h2>Threads</h2><p class='note'>Decoded tokens/s.</p><div "
        f"class='card'>{legend}{chart}</div>"
    )


def _starts(report: Report) -> str:
    cold = report.find("cold_start")
    left = "" if cold is None else _cold(cold, report)
    return side_by_side(left, _memory(report))


def _cold(cold: Measurement, report: Report) -> str:
    parts = ("interpreter_ms", "import_ms", "load_ms", "first_token_ms")
    segments = [
        Bar(f"{title(name)}", cold.numbers[name].value, time_text(cold.numbers[name].value), style)
        for name, style in zip(parts, ("base", "fourth", "prefix", "third"), strict=True)
    ]
    total, first = cold.numbers["total_ms"], report.circumstances["first_start_ms"]
    note = (
        f"A fresh process each time, {len(total.samples)} of them: {time_text(total.value)} until "
        "the first token of a prompt "
        f"of {cold.cell.prompt_tokens} ({time_text(total.least)} to {time_text(total.most)}). "
        f"The very first took {time_text(first)}."
    )
    chart = stacked(segments, title="parts of a cold start in milliseconds")
    return f"<h2>Cold start</h2><p class='note'>{escape(note)}</p><div class='card'>{chart}</div>"


def _memory(report: Report) -> str:
    names = (
        ("files", "files of the bundle", "base"),
        ("after_import", "runtime imported", "prefix"),
        ("after_load", "bundle open", "prefix"),
        ("peak", "one sequence generated", "prefix"),
        ("peak_full_batch", "all of this bench in one process", "third"),
    )
    rows = [
        Bar(label, amount, size_text(amount), style)
        for key, label, style in names
        if (amount := report.memory.get(key))
    ]
    chart = bars(
        rows, most=max((row.value for row in rows), default=1), title="bytes on disk and in memory"
    )
    note = "Peak of a process' resident memory up to that moment."
    return f"<h2>Memory</h2><p class='note'>{note}</p><div class='card'>{chart}</div>"


def _tasks(report: Report) -> str:
    return side_by_side(_swaps(report), _gains(report))


def _swaps(report: Report) -> str:
    one = report.find("prefix")
    if one is None:
        return ""
    rows = [
        _time_bar(title(f"{kind}_ms_p{share}"), one.numbers[f"{kind}_ms_p{share}"], style)
        for kind, style in (("swap", "prefix"), ("load", "third"))
        for share in (50, 99)
    ]
    chart = log_bars(rows, title="milliseconds to change the task, logarithmic")
    note = (
        f"Prefixes of {one.cell.prefix_positions} positions; logarithmic scale. From disk includes "
        "hash and identity checks."
    )
    return f"<h2>Changing the task</h2><p class='note'>{note}</p><div class='card'>{chart}</div>"


def _gains(report: Report) -> str:
    text, mixed = report.find("instead_of_text"), report.find("mixed")
    cards = ""
    if text is not None:
        behind, whole = text.numbers["with_prefix_ms"], text.numbers["as_text_ms"]
        rows = [
            _time_bar("behind the prefix", behind, "prefix"),
            _time_bar("all as text", whole, "base"),
        ]
        what = (
            f"First token of a prompt of {text.cell.prompt_tokens}, {text.cell.prefix_positions} "
            "positions before it"
        )
        cards += f"<p class='small'>{what}</p>" + (
            bars(
                rows,
                most=max(behind.most, whole.most),
                title="first token behind a prefix and as text",
            )
        )
    if mixed is not None:
        rates = [
            (mixed.numbers[f"{kind}_tokens_per_s"], label, style)
            for kind, label, style in (
                ("mixed", "a task for each row", "prefix"),
                ("single_task", "one task for all rows", "base"),
            )
        ]
        rows = [
            Bar(label, n.value, rate_text(n.value), style, (n.least, n.most))
            for n, label, style in rates
        ]
        cards += (
            f"<p class='small' style='margin-top:18px'>Tokens/s of {mixed.cell.batch} rows, "
            "prompts included</p>"
            + bars(
                rows,
                most=max(n.most for n, _, _ in rates),
                title="tokens a second, mixed and single-task batch",
            )
        )
    return (
        "<h2>What prefixes save</h2><p class='note'>And what many tasks in one batch "
        f"cost.</p><div class='card'>{cards}</div>"
        if cards
        else ""
    )


def _table(report: Report) -> str:
    rows = "".join(_rows(one) for one in report.measurements)
    return (
        "<h2>Every number</h2><p class='note'>Medians of the rounds; percentiles over all times "
        "of all rounds. Limit: memory "
        "bandwidth over the bytes that a step must read.</p><div class='card "
        "scroll'><table><tr><th>what</th>"
        "<th class='number'>value</th><th class='number'>quartiles of the rounds</th><th "
        "class='number'>least … most</th>"
        f"<th class='number'>rounds</th><th class='number'>limit</th></tr>{rows}</table></div>"
    )


def _rows(one: Measurement) -> str:
    lines = [f"<tr><td colspan='6'><b>{escape(one.cell.label)}</b></td></tr>"]
    for name, number in one.numbers.items():
        low, high = number.quartiles
        limit = one.limit_tokens_per_s if name == "tokens_per_s" else None
        share = "" if limit is None else f"{rate_text(limit)} ({number.value / limit:.0%} of it)"
        cells = (
            shown(name, number.value),
            f"{shown(name, low)} … {shown(name, high)}",
            f"{shown(name, number.least)} … {shown(name, number.most)}",
            str(len(number.samples)),
            share,
        )
        lines.append(
            f"<tr><td>{escape(title(name))}"
            f"</td>{''.join(f'<td class=number>{escape(cell)}</td>' for cell in cells)}</tr>"
        )
    return "".join(lines)


def _machine(report: Report) -> str:
    return f"<h2>Machine</h2>{facts(machine_facts(report))}"


def _skipped(report: Report) -> str:
    if not report.skipped:
        return ""
    rows = "".join(
        f"<tr><td>{escape(cell)}</td><td>{escape(reason)}</td></tr>"
        for cell, reason in report.skipped
    )
    return f"<h2>Not measured</h2><div class='card scroll'><table>{rows}</table></div>"


def _bandwidth(report: Report) -> str:
    if not report.bandwidth:
        return "not measured"
    found = report.bandwidth
    return (
        f"{found['memory'].most / 1e9:.1f} GB/s read from memory "
        f"({found['memory_one_thread'].most / 1e9:.1f} by one thread), "
        f"{found['weights'].most / 1e9:.1f} GB/s over a working set as large as the weights"
    )


def _company(report: Report) -> str:
    known = report.circumstances
    if known["others_during"] is None:
        return "not told"
    return (
        f"used {known['others_before'] or 0:.0%} of the cores before and "
        f"{known['others_during']:.0%} during the bench; steal "
        f"{known['steal_during']:.1%}"
    )


def _time_bar(label: str, number: Number, style: str) -> Bar:
    return Bar(label, number.value, time_text(number.value), style, (number.least, number.most))


def _legend(labels: Sequence[tuple[str, str]]) -> str:
    shown_labels = "".join(
        f"<span><i class='{style}'></i>{escape(label)}</span>" for style, label in labels
    )
    return f"<div class='legend' style='margin-top:0'>{shown_labels}</div>"
