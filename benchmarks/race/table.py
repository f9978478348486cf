"""A result as Markdown: for each model and precision a row a peer, then ours against the best of
the others.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.race.cells import CELLS, ONLY_OURS, SECTIONS
from benchmarks.race.field import PRECISIONS
from benchmarks.race.result import Result

STANDING = ("decode_128", "batch_decode", "first_128", "peak")
COLUMNS = (
    "decode_128",
    "decode_1024",
    "batch_decode",
    "first_16",
    "first_128",
    "first_1024",
    "peak",
)
DECODES = ("decode_128", "decode_1024", "batch_decode")
BATCH_ROWS = {"batch_decode": 8}
MISSING = "–"


def markdown(result: Result) -> str:
    """Where ours stands, tables of all models, sizes, and what is missing."""
    parts = [line for model in result["models"] for line in _model(result, model)]
    return (
        "\n".join(
            [
                *_head(result),
                *_standing(result),
                *parts,
                *_compiled(result),
                *_sizes(result),
                *_reasons(result),
            ]
        )
        + "\n"
    )


def _head(result: Result) -> Iterator[str]:
    session = result["sessions"][-1]
    machine, bandwidth = session["machine"], bandwidth_of(result)
    rounds = max((len(cell["rounds"]) for cell in result["cells"]), default=0)
    others = [turn["others_cores"] for turn in result["turns"]]
    yield (
        f"{machine['processor']}, {session['threads']} threads, {', '.join(machine['features'])}; "
        "memory "
        f"{bandwidth / 1e9:.1f} GB/s as measured; {rounds} rounds, medians, in brackets the least "
        "and the most; "
        f"other processes took {statistics.median(others):.2f} cores, {max(others):.2f} at most. "
        "Tokens/s: more is better; milliseconds and MB: less is better."
    )
    yield ""


def _standing(result: Result) -> Iterator[str]:
    """Ours to the best other in the cells that one asks for first."""
    yield "### Ours to the best other; above 1 ours is better"
    yield ""
    yield "| | " + " | ".join(CELLS[column].title for column in STANDING) + " |"
    yield "|---|" + "---|" * len(STANDING)
    for model, facts in result["models"].items():
        for precision in PRECISIONS:
            rows = _rows(result, model, precision)
            if rows:
                verdicts = " | ".join(_verdict(result, rows, column) for column in STANDING)
                yield f"| {facts['title']} {precision} | {verdicts} |"
    yield ""


def bandwidth_of(result: Result) -> float:
    """Bytes/s of memory: the best of each start's samples, their median over the starts."""
    return statistics.median(max(session["memory_bytes_per_s"]) for session in result["sessions"])


def _model(result: Result, model: str) -> Iterator[str]:
    facts = result["models"][model]
    for precision in PRECISIONS:
        rows = _rows(result, model, precision)
        peers = [
            peer for peer in result["peers"] if any((peer, column) in rows for column in COLUMNS)
        ]
        if not peers:
            continue
        yield f"### {facts['title']}, {precision}"
        yield ""
        yield "| | " + " | ".join(_title(column, facts) for column in COLUMNS) + " | same tokens |"
        yield "|---|" + "---|" * (len(COLUMNS) + 1)
        for peer in peers:
            shown = " | ".join(_value(rows.get((peer, column))) for column in COLUMNS)
            yield (
                f"| {result['peers'][peer]['title']} | {shown} | "
                f"{_agreement(facts, precision, peer)} |"
            )
        yield (
            "| *memory's limit* | "
            f"{' | '.join(_limit(result, facts, precision, column) for column in COLUMNS)} | |"
        )
        yield (
            "| **ours to the best other** | "
            f"{' | '.join(_verdict(result, rows, column) for column in COLUMNS)} | |"
        )
        yield ""


def _rows(result: Result, model: str, precision: str) -> dict[tuple[str, str], dict[str, Any]]:
    """(peer, cell) → what was measured."""
    return {
        (cell["peer"], cell["cell"]): cell
        for cell in result["cells"]
        if cell["model"] == model and cell["precision"] == precision
    }


def _title(column: str, facts: dict[str, Any]) -> str:
    title = CELLS[column].title
    return title.replace("1,024", f"{facts['long_tokens']:,}") + f", {CELLS[column].unit}"


def _value(cell: dict[str, Any] | None) -> str:
    if cell is None or cell["value"] is None:
        return MISSING
    value = cell["value"]
    spread = "" if value["rounds"] < 2 else f" ({_short(value['least'])}–{_short(value['most'])})"
    return _short(value["median"]) + spread


def _verdict(result: Result, rows: dict[tuple[str, str], dict[str, Any]], column: str) -> str:
    """The ratio to the best other peer; above 1 ours is better."""
    best = best_rival(rows, column)
    if best is None:
        return MISSING
    ratio = rows[best, column]["ratio"]
    spread = "" if ratio["rounds"] < 2 else f" ({ratio['least']:.2f}–{ratio['most']:.2f})"
    return f"**{ratio['median']:.2f} ×**{spread} {result['peers'][best]['title']}"


def best_rival(rows: dict[tuple[str, str], dict[str, Any]], column: str) -> str | None:
    """The peer with the best median that has a ratio to ours; None when there is none."""
    rivals = {
        peer: cell["value"]["median"]
        for (peer, name), cell in rows.items()
        if name == column and cell["ratio"]
    }
    if not rivals:
        return None
    return (
        max(rivals, key=rivals.__getitem__)
        if CELLS[column].higher_is_better
        else min(rivals, key=rivals.__getitem__)
    )


def _limit(result: Result, facts: dict[str, Any], precision: str, column: str) -> str:
    """Tokens/s at which reading our weights once a step takes all of the memory's bandwidth."""
    weights = facts["weight_bytes_per_token"].get(precision)
    if column not in DECODES or not weights:
        return ""
    return _short(BATCH_ROWS.get(column, 1) * bandwidth_of(result) / weights)


def _agreement(facts: dict[str, Any], precision: str, peer: str) -> str:
    share = facts["same_tokens_as_ours"].get(precision, {}).get(peer)
    return MISSING if share is None else f"{share:.0%}"


def _compiled(result: Result) -> Iterator[str]:
    names = [cell for section in ONLY_OURS for cell in SECTIONS[section]]
    rows = {
        (cell["model"], cell["precision"], cell["cell"]): cell
        for cell in result["cells"]
        if cell["cell"] in names and cell["value"]
    }
    pairs = [(model, precision) for model, precision, name in rows if name == "compiled"]
    if not pairs:
        return
    yield (
        "### A compiled text against prompting with it (edgeprefix), 16 tokens of prompt behind it"
    )
    yield ""
    yield "| | text | first token, compiled, ms | first token, prompted, ms | |"
    yield "|---|---|---|---|---|"
    for model, precision in pairs:
        compiled, prompted = rows[model, precision, "compiled"], rows[model, precision, "prompted"]
        times = prompted["value"]["median"] / compiled["value"]["median"]
        facts = result["models"][model]
        yield (
            f"| {facts['title']}, {precision} | {facts['long_tokens']:,} tokens | "
            f"{_value(compiled)} | {_value(prompted)} "
            f"| {times:.1f} × |"
        )
    yield ""


def _sizes(result: Result) -> Iterator[str]:
    yield "### Sizes, MB"
    yield ""
    places = [
        (model, precision)
        for model, facts in result["models"].items()
        for precision in facts["model_bytes"]
    ]
    yield (
        "| | installed | "
        + " | ".join(
            f"{result['models'][model]['title']} {precision}" for model, precision in places
        )
        + " |"
    )
    yield "|---|---|" + "---|" * len(places)
    for peer, facts in result["peers"].items():
        sizes = [
            result["models"][model]["model_bytes"][precision].get(peer)
            for model, precision in places
        ]
        shown = " | ".join(MISSING if size is None else f"{size / 1e6:,.0f}" for size in sizes)
        yield f"| {facts['title']} | {facts['install_bytes'] / 1e6:,.0f} | {shown} |"
    yield ""


def _reasons(result: Result) -> Iterator[str]:
    """Who could not do what, said once for each reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for cell in result["cells"]:
        if cell["reason"] is not None:
            place = f"{result['models'][cell['model']]['title']} {cell['precision']}"
            places = found.setdefault((cell["peer"], cell["reason"]), [])
            if place not in places:
                places.append(place)
    for (peer, reason), places in found.items():
        yield f"- {result['peers'][peer]['title']}, {', '.join(places)}: {reason}."


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
