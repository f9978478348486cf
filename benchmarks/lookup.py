"""Prompt-lookup speculation on a task whose output copies from its input: tokens/s with and
without, same tokens?

    python benchmarks/lookup.py BUNDLE PREFIX ROWS.jsonl --json benchmarks/results/lookup-DATE.json

Rows come from a file with `input` (the demo's test rows, say: `edgeprefix demo` writes bundle,
prefixes and data). Each row is generated greedily with every draft length in turn, one request at a
time, since drafts are only tried while a sequence decodes alone. Reported for each draft length:
tokens per second of processor time of one compute thread (behind the first token: what requests of
one token take is subtracted, so that prompts do not dilute the gain; median of the rounds), tokens
for each run of the graph, and rows whose tokens differ from plain decoding: none in fp32; in int4
the kernels' rounding may turn one now and then.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from edgeprefix.cli.rows import Row, read_rows
from edgeprefix.runtime import Engine
from edgeprefix.runtime.contracts.manifest import TOKENIZER_FILE, Manifest
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.decoding.decoder import Decoder, Logits
from edgeprefix.runtime.decoding.opening import make_cache
from edgeprefix.runtime.decoding.quiet_ort import ort
from edgeprefix.runtime.decoding.session import open_graph
from edgeprefix.runtime.generation.options import Settings

DRAFTS = (0, 2, 4, 8)


class CountingDecoder(Decoder):
    """Counts its runs."""

    runs = 0

    def step(self, tokens: Sequence[int], lengths: Sequence[int]) -> Logits:
        self.runs += 1
        return super().step(tokens, lengths)

    def feed(
        self, slot: int, tokens: Any, *, start: int, wanted: Sequence[int] | None = None
    ) -> Logits:
        self.runs += 1
        return super().feed(slot, tokens, start=start, wanted=wanted)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("prefix", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--limit", type=int, default=40, help="rows")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = read_rows(arguments.rows, required=("input",))[: arguments.limit]
    manifest = Manifest.load(arguments.bundle)
    graph = open_graph(arguments.bundle, manifest, threads=1)
    decoder = CountingDecoder(
        graph, make_cache(graph, batch=1, capacity=min(512, manifest.max_positions))
    )
    tokenizer = TextTokenizer.from_file(arguments.bundle / TOKENIZER_FILE, end_ids=manifest.end_ids)
    with Engine(manifest, tokenizer, decoder) as engine:
        task = engine.load_prefix(arguments.prefix).name
        table = measure(engine, decoder, task, rows, arguments.rounds)
    results = {
        "base": manifest.base.name,
        "precision": manifest.precision,
        "task": task,
        "rows": len(rows),
        "threads": 1,
        "rounds": arguments.rounds,
        "drafts": table,
        "onnxruntime": ort.__version__,
        "cores": os.cpu_count(),
        "load_average": list(os.getloadavg()),
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    show(table)
    print(json.dumps(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def measure(
    engine: Engine, decoder: CountingDecoder, task: str, rows: Sequence[Row], rounds: int
) -> list[dict[str, Any]]:
    """One entry for each draft length; the lengths take turns, and the first round only
    warms up.
    """
    speeds: dict[int, list[float]] = {draft: [] for draft in DRAFTS}
    texts: dict[int, list[tuple[int, ...]]] = {}
    runs: dict[int, int] = {}
    for _ in range(rounds + 1):
        _, prompts_s = generate(engine, task, rows, max_new_tokens=1)
        for draft in DRAFTS:
            before = decoder.runs
            texts[draft], seconds = generate(engine, task, rows, lookup=draft)
            runs[draft] = decoder.runs - before - len(rows)
            speeds[draft].append(sum(len(one) - 1 for one in texts[draft]) / (seconds - prompts_s))
    tokens = sum(len(one) - 1 for one in texts[0])
    return [
        {
            "lookup": draft,
            "tokens_per_s": round(statistics.median(speeds[draft][1:]), 1),
            "gain": round(statistics.median(np.divide(speeds[draft][1:], speeds[0][1:])), 3),
            "tokens_per_run": round(tokens / runs[draft], 2),
            "rows_that_differ": sum(
                one != plain for one, plain in zip(texts[draft], texts[0], strict=True)
            ),
        }
        for draft in DRAFTS
    ]


def generate(
    engine: Engine, task: str, rows: Sequence[Row], **options: Unpack[Settings]
) -> tuple[list[tuple[int, ...]], float]:
    """Tokens of every row, one after the other, and the seconds of processor time that they
    took.
    """
    started = time.process_time()
    done = [
        engine.generate(row.fields, task=task, temperature=0.0, **options).tokens for row in rows
    ]
    return done, time.process_time() - started


def show(table: Sequence[dict[str, Any]]) -> None:
    print("draft  tokens/s   gain  tokens/run  rows that differ")
    for one in table:
        print(
            f"{one['lookup']:5} {one['tokens_per_s']:9.1f} {one['gain']:6.2f} "
            f"{one['tokens_per_run']:11.2f}"
            f" {one['rows_that_differ']:17}"
        )


if __name__ == "__main__":
    main()
