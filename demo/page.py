"""The report as one HTML file that needs nothing else: no script, no font, no picture from
elsewhere.

It is drawn from report.json's value alone, so that a report can be drawn again, or another's looked
at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from edgeprefix.page.charts import Bar, Series, bars, curves, log_bars
from edgeprefix.page.document import document, facts, side_by_side, tile
from edgeprefix.page.units import number_and_unit, size_text, time_text

Report = Mapping[str, Any]

_MOST_CHARACTERS = 240


def render(report: Report) -> str:
    """The whole page."""
    sections = (_header, _tiles, _tasks, _samples, _mixed, _speed, _circumstances, _commands)
    body = "\n".join(section(report) for section in sections)
    footer = (
        f"edgeprefix {report['versions']['edgeprefix']}. "
        "This page is drawn from report.json beside it and loads nothing from elsewhere."
    )
    return document(f"edgeprefix demo: {report['base']['name']}", body, footer=footer)


def score_text(metric: str, value: float) -> str:
    """A metric's value for people: BLEU in points, accuracy in per cent."""
    return f"{value * 100:.0f} %" if metric == "accuracy" else f"{value:.1f}"


def _header(report: Report) -> str:
    base, names = report["base"], [task["name"] for task in report["tasks"]]
    size = f"{base['parameters'] / 1e6:.1f} million parameters"
    quick = (
        " This was a quick run: too short to say anything about quality." if report["quick"] else ""
    )
    return (
        f"<p class='eyebrow'>edgeprefix demo, {escape(report['created'])}</p>"
        f"<h1>One frozen base, {_counted(len(names))} tasks, {_counted(len(names))} small "
        "files</h1>"
        f"<p class='lead'>{escape(base['name'])} ({size}) stays as it is. Each task is a prefix: "
        "keys and values "
        f"that stand before the text, learned in about {_minutes(report)} on "
        f"{escape(report['machine']['processor'])} with "
        f"{report['machine']['cores']} cores, then served by one ONNX decoder in a process "
        f"without torch.{quick}</p>"
    )


def _tiles(report: Report) -> str:
    largest = max(task["prefix_bytes"] for task in report["tasks"])
    equal = report["mixed_equals_alone"]
    tiles = [
        tile(
            f"{report['decode_tokens_per_s']:,.0f}",
            "tokens/s",
            f"decoded, one request, {report['precision']}",
        ),
        tile(*number_and_unit(time_text(report["first_token_ms"])), "to the first token"),
        tile(
            *number_and_unit(time_text(report["swap_ms"]["p50"])),
            "to put another task's prefix in place (median)",
        ),
        tile(
            *number_and_unit(size_text(largest)), "a task's whole file, prompt and recipe included"
        ),
        tile(
            f"{report['max_difference_to_torch']:.1e}", "", "largest difference of a logit to torch"
        ),
        tile(
            "equal" if equal else "different",
            "",
            "texts of a mixed batch and alone",
            "good" if equal else "bad",
        ),
    ]
    return f"<div class='grid tiles'>{''.join(tiles)}</div>"


def _tasks(report: Report) -> str:
    cards = "".join(_task_card(task) for task in report["tasks"])
    rows = ", ".join(f"{task['test_rows']} for {task['name']}" for task in report["tasks"])
    return (
        "<h2>What a prefix adds</h2><p class='note'>Measured on test rows that share no name, "
        "object or turn of phrase with "
        f"the training rows ({rows}), through the exported decoder. BLEU is sacrebleu's corpus "
        "BLEU, accuracy counts the "
        f"likeliest label.</p><div class='grid cards'>{cards}</div>"
    )


def _task_card(task: Mapping[str, Any]) -> str:
    metric, training = task["metric"], task["training"]
    word = "accuracy" if metric == "accuracy" else "BLEU"
    before, after = (score_text(metric, task[key]) for key in ("base", "prefix"))
    scale = 1.0 if metric == "accuracy" else 100.0
    chart = bars(
        (
            Bar("base alone", task["base"], before, "base"),
            Bar("with its prefix", task["prefix"], after),
        ),
        most=scale,
        title=f"{task['name']}: {word} {before} without, {after} with prefix",
    )
    words = (
        f"{task['prefix_length']} positions, {size_text(task['prefix_bytes'])}. "
        f"{training['steps']} steps of "
        f"{training['batch_size']} rows in {training['seconds']:.0f} s."
    )
    return (
        f"<div class='card'><h3>{escape(task['name'])}</h3><p "
        f"class='small'>{escape(task['title'])}</p>"
        f"<div class='gain'><s>{before}</s> → "
        f"{after}<small>{word}</small></div>{chart}{_loss_curve(task)}"
        f"<p class='small' style='margin:12px 0 0'>{escape(words)}</p></div>"
    )


def _loss_curve(task: Mapping[str, Any]) -> str:
    training = task["training"]
    series = (
        Series(
            "training",
            _smooth([(point["step"], point["loss"]) for point in training["curve"]]),
            "base",
        ),
        Series(
            "validation",
            [(point["step"], point["loss"]) for point in training["validation"]],
            "third",
            dots=True,
        ),
    )
    legend = "<i class='base'></i>training loss", "<i class='third'></i>validation loss"
    shown = "".join(f"<span>{item}</span>" for item in legend)
    return f"<div class='legend'>{shown}</div>" + curves(
        series, x_label="step", title=f"loss of {task['name']} while training"
    )


def _smooth(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """An exponential mean, so that the line shows the course and not the batch."""
    smoothed: list[tuple[float, float]] = []
    for x, y in points:
        mean = smoothed[-1][1] * 0.8 + y * 0.2 if smoothed else y
        smoothed.append((x, mean))
    return smoothed


def _samples(report: Report) -> str:
    cards = "".join(
        f"<div class='card' style='margin-top:16px'><h3>{escape(task['name'])}</h3>"
        + "".join(_sample(sample) for sample in task["samples"])
        + "</div>"
        for task in report["tasks"]
    )
    return (
        "<h2>Test rows, side by side</h2><p class='note'>The first test rows of each task, not the "
        f"best.</p>{cards}"
    )


def _sample(sample: Mapping[str, str]) -> str:
    columns = (("base alone", "base"), ("with its prefix", "prefix"), ("reference", "reference"))
    cells = "".join(
        f"<div class='{key}'><em>{label}</em>{_text(sample[key])}</div>" for label, key in columns
    )
    return f"<div class='sample'><div class='input'>{escape(sample['input'])}</div>{cells}</div>"


def _speed(report: Report) -> str:
    return side_by_side(_latency(report), _precisions(report))


def _circumstances(report: Report) -> str:
    return side_by_side(_time(report), _machine(report))


def _latency(report: Report) -> str:
    swap, load, token = report["swap_ms"], report["load_ms"], report["token_ms"]
    rows = [
        _time_bar("prefix in place, median", swap["p50"], "prefix"),
        _time_bar("prefix in place, 99th percentile", swap["p99"], "prefix"),
        _time_bar("prefix file from disk, checked", load["p50"], "prefix"),
        _time_bar("one more token, median", token["p50"], "third"),
        _time_bar("one more token, 99th percentile", token["p99"], "third"),
        _time_bar("first token, prompt included", report["first_token_ms"], "third"),
        _time_bar("engine from bundle, cold", report["engine_load_ms"], "base"),
    ]
    how = report["latency"]
    note = (
        "Logarithmic scale. A prefix that is in memory is put in place by a copy into the "
        "request's own cache "
        f"({how['swaps']:,} times measured). Tokens: {how['requests']} requests one after "
        "another, prompts of "
        f"{how['prompt_tokens']} tokens on average behind prefixes of {how['prefix_length']} "
        "positions."
    )
    chart = log_bars(rows, title="latencies in milliseconds on a logarithmic scale")
    return f"<h2>Latency</h2><p class='note'>{escape(note)}</p><div class='card'>{chart}</div>"


def _time_bar(label: str, ms: float, style: str) -> Bar:
    return Bar(label, ms, time_text(ms), style)


def _mixed(report: Report) -> str:
    mixed = report["mixed"]
    rows = "".join(
        f"<tr><td><span class='tag'>{escape(row['task'])}</span></td><td "
        f"class='text'>{_text(row['input'])}</td>"
        f"<td class='text'>{_text(row['text'])}</td><td>{_verdict(row['equal'])}</td></tr>"
        for row in mixed["rows"]
    )
    checked = ", ".join(mixed["precisions"])
    note = (
        f"{mixed['requests']} requests, the tasks taking turns, in one call of generate_many: "
        "every row of the batch reads its "
        "own prefix. Then each request again on its own. All token ids must be the same "
        f"({checked}); "
        f"{mixed['equal']} of {mixed['requests']} were. Shown: the first {len(mixed['rows'])}."
    )
    return (
        f"<h2>Three tasks in one batch</h2><p class='note'>{escape(note)}</p><div class='card "
        "scroll'><table><tr><th>task</th>"
        f"<th>input</th><th>text from the mixed batch</th><th>alone</th></tr>{rows}</table></div>"
    )


def _verdict(equal: bool) -> str:
    return "<span class='ok'>same</span>" if equal else "<span class='wrong'>differs</span>"


def _precisions(report: Report) -> str:
    found = report["precisions"]
    heads = "".join(f"<th class='number'>{escape(name)}</th>" for name in found)
    lines: list[tuple[str, list[str]]] = [
        ("bundle", [size_text(entry["bundle_bytes"]) for entry in found.values()]),
        ("decode", [f"{entry['decode_tokens_per_s']:,.0f} tokens/s" for entry in found.values()]),
        ("first token", [time_text(entry["first_token_ms"]) for entry in found.values()]),
        (
            "largest difference to torch",
            [f"{entry['max_difference_to_torch']:.1e}" for entry in found.values()],
        ),
    ]
    for task in report["tasks"]:
        scores = [
            score_text(task["metric"], task["by_precision"][name]["prefix"]) for name in found
        ]
        lines.append(
            (
                (
                    f"{task['name']}, {'accuracy' if task['metric'] == 'accuracy' else 'BLEU'} "
                    "with prefix"
                ),
                scores,
            )
        )
    rows = "".join(
        f"<tr><td>{escape(label)}</td>{_number_cells(cells)}</tr>" for label, cells in lines
    )
    return (
        "<h2>Precision of the weights</h2><p class='note'>The same prefix files, trained once "
        "over the base as it is, met by "
        "weights of each precision.</p><div class='card scroll'><table>"
        f"<tr><th></th>{heads}</tr>{rows}</table></div>"
    )


def _number_cells(cells: Iterable[str]) -> str:
    return "".join(f"<td class='number'>{escape(cell)}</td>" for cell in cells)


def _time(report: Report) -> str:
    stages = report["seconds"]
    rows = [Bar(name, value, f"{value:.1f} s") for name, value in stages.items() if name != "total"]
    chart = bars(rows, most=max(row.value for row in rows), title="seconds that each stage took")
    return f"<h2>Where {stages['total']:.0f} seconds went</h2><div class='card'>{chart}</div>"


def _machine(report: Report) -> str:
    machine, versions = report["machine"], report["versions"]
    torch = (
        "not in the measuring process"
        if not report["torch_in_measuring_process"]
        else "WAS in the measuring process"
    )
    rows = {
        "Processor": f"{machine['processor']}, {machine['cores']} cores used",
        "Memory": size_text(machine["memory_bytes"]) if machine["memory_bytes"] else "unknown",
        "System": machine["system"],
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "torch": f"trained and exported; {torch}",
        "Base": f"{report['base']['name']}, {report['base']['sha256'][:16]}…",
        "Seed": str(report["seed"]),
    }
    return f"<h2>Machine</h2>{facts(rows)}"


def _commands(report: Report) -> str:
    blocks = "".join(
        f"<p class='small'>{escape(entry['what'])}</p><pre>{escape(entry['command'])}</pre>"
        for entry in report["commands"]
    )
    return f"<h2>Go on from here</h2>{blocks}"


def _text(text: str) -> str:
    """What a model wrote, on one line, cut when it rambles."""
    words = " ".join(text.split())
    return (
        escape(words if len(words) <= _MOST_CHARACTERS else f"{words[:_MOST_CHARACTERS]}…")
        or "<i>(nothing)</i>"
    )


def _counted(count: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six")
    return words[count] if count < len(words) else str(count)


def _minutes(report: Report) -> str:
    seconds = sum(task["training"]["seconds"] for task in report["tasks"]) / max(
        len(report["tasks"]), 1
    )
    return f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes"
