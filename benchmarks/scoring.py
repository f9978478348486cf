"""Labels scored row by row against rows that share the batch: does it pay?

    python benchmarks/scoring.py BUNDLE PREFIX ROWS.jsonl --json
    benchmarks/results/scoring-DATE.json

`Engine.score` in an engine of one slot is the row-by-row way; `Engine.score_each` over eight slots
is what `edgeprefix score` does. Two sets of options: the task's own labels, and eight of one token
each. Processor time of one compute thread, both ways in turn, the first round only warms up;
medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeprefix.cli.rows import Row, read_rows
from edgeprefix.runtime import Engine
from edgeprefix.runtime.decoding.quiet_ort import ort

LETTERS = tuple("ABCDEFGH")
SLOTS = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("prefix", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--limit", type=int, default=50, help="rows")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = read_rows(arguments.rows)[: arguments.limit]
    common: dict[str, Any] = {"prefixes": arguments.prefix, "max_length": 512, "threads": 1}
    with (
        Engine.load(arguments.bundle, max_batch=1, **common) as single,
        Engine.load(arguments.bundle, max_batch=SLOTS, steady=True, **common) as batch,
    ):
        task = batch.tasks()[0]
        sets = {"the task's labels": task.pack.labels, "eight letters": LETTERS}
        table = [
            {
                "options": name,
                "tokens": [len(batch.tokenizer.encode_target(one)) for one in options],
            }
            | measure(single, batch, task.name, options, rows, arguments.rounds)
            for name, options in sets.items()
        ]
        manifest = batch.manifest
    results = {
        "base": manifest.base.name,
        "precision": manifest.precision,
        "task": task.name,
        "rows": len(rows),
        "threads": 1,
        "rounds": arguments.rounds,
        "sets": table,
        "onnxruntime": ort.__version__,
        "cores": os.cpu_count(),
        "load_average": list(os.getloadavg()),
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    for one in table:
        print(
            (
                f"{one['options']:18} row by row {one['alone_ms']:6.2f} ms, batched "
                f"{one['batched_ms']:6.2f} ms a row"
            ),
            end=", ",
        )
        print(f"gain {one['gain']:.2f}, same labels {one['same_labels']} of {len(rows)}")
    print(json.dumps(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def measure(
    single: Engine,
    batch: Engine,
    task: str,
    options: Sequence[str],
    rows: Sequence[Row],
    rounds: int,
) -> dict[str, Any]:
    """Milliseconds of processor time a row, both ways."""
    alone, together = [], []
    for _ in range(rounds + 1):
        started = time.process_time()
        first = [single.score(row.fields, options, task=task).best for row in rows]
        between = time.process_time()
        second = [
            scores.best
            for _, scores in batch.score_each((row.fields for row in rows), options, task=task)
        ]
        alone.append(1000 * (between - started) / len(rows))
        together.append(1000 * (time.process_time() - between) / len(rows))
    return {
        "alone_ms": round(statistics.median(alone[1:]), 3),
        "batched_ms": round(statistics.median(together[1:]), 3),
        "gain": round(
            statistics.median(
                one / other for one, other in zip(alone[1:], together[1:], strict=True)
            ),
            3,
        ),
        "same_labels": sum(one == other for one, other in zip(first, second, strict=True)),
    }


if __name__ == "__main__":
    main()
