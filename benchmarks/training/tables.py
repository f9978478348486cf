"""Tables out of the results of `run.py` (all rows when no file is given): mean over seeds, and the
spread behind it.

python benchmarks/training/tables.py [FILE]
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from cells import METHODS, METRIC, THROUGH_RUNTIME
from run import RESULTS


def main() -> None:
    """Prints a table for each data set and number of rows."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    groups: dict[tuple[str, int, int], list[dict[str, Any]]] = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        groups[record["data"], record["rows"], record["steps"]].append(record)
    for (data, rows, steps), records in sorted(groups.items()):
        print(f"\n**{data}**, {f'{rows} rows' if rows else 'all rows'}, {steps} steps\n")
        print(table(records, METRIC[data]))


def table(records: list[dict[str, Any]], metric: str) -> str:
    """A line for each method, in the order of METHODS."""
    lines = [
        (
            f"| method | seeds | held-out loss | {metric} | prose loss | trained numbers | file | "
            "seconds | peak memory |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        mine = [record for record in records if record["method"] == method]
        if mine:
            lines.append(row(method, mine, metric))
    for method in THROUGH_RUNTIME:
        runtime = [
            record["runtime"]
            for record in records
            if record["method"] == method and "runtime" in record
        ]
        if runtime:
            scores = (f"{name} {spread([one[name] for one in runtime], 1)}" for name in runtime[0])
            lines.append(f"\n{method} through the runtime, {metric}: {', '.join(scores)}.")
    return "\n".join(lines)


def row(method: str, mine: list[dict[str, Any]], metric: str) -> str:
    """One method's line; what it has not (the base trains nothing) stays empty."""
    first = mine[0]
    trained = f"{first['trained_numbers']:,}" if first.get("trained_numbers") else ""
    size = f"{first['file_bytes'] / 1e3:,.0f} kB" if first.get("file_bytes") else ""
    seconds = spread([one["seconds"] for one in mine], 0) if first.get("seconds") else ""
    peak = f"{max(one['peak_bytes'] for one in mine) / 1e9:.1f} GB"
    loss, score, prose = (
        spread([one[name] for one in mine], digits)
        for name, digits in (("loss", 3), (metric, 1), ("prose_loss", 3))
    )
    return (
        f"| {method} | {len(mine)} | {loss} | {score} | {prose} | {trained} | {size} | {seconds} | "
        f"{peak} |"
    )


def spread(numbers: list[float], digits: int) -> str:
    """Mean, and the standard deviation where there are several."""
    mean = f"{statistics.fmean(numbers):.{digits}f}"
    return mean if len(numbers) < 2 else f"{mean} ± {statistics.stdev(numbers):.{digits}f}"


if __name__ == "__main__":
    main()
