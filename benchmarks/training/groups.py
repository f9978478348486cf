"""Time of forward and backward for a batch of 16 random rows: padded, padded in groups of like
length, and packed.

python benchmarks/training/groups.py [--data e2e] [--rounds 5] [--out FILE]

In both precisions, all in turns in one process; medians. Give the machine nothing else to do. Needs
../shared/data.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from cells import METRIC, Cell
from data import PROMPT, missing, rows_of
from run import ROOT, machine, today

from edgeprefix.train import FrozenModel, load_base
from edgeprefix.train.batches import groups_of_like_length
from edgeprefix.train.data import Example, load_data
from edgeprefix.train.objective import Objective

ROWS, BATCH, LENGTH = 128, 16, 100
PADDED_TOKENS, PACKED_TOKENS = (256, 512), (256, 512, 1024)


def main() -> None:
    """Rounds over all ways, then the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, default=ROOT / "demo" / "base")
    parser.add_argument("--data", default="e2e", choices=sorted(METRIC))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if reason := missing(options.data):
        sys.exit(f"skipped: {reason}")
    result = {"data": options.data, "ms": {}, "date": today(), "machine": machine()}
    for precision in ("fp32", "bf16"):
        result["ms"][precision] = medians(options, precision)
        print(precision, result["ms"][precision])
    print(json.dumps(result))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def medians(options: argparse.Namespace, precision: str) -> dict[str, float]:
    """Milliseconds of a batch by the way in which it is read."""
    base = load_base(options.base, precision=precision)
    rows = rows_of(Cell(data=options.data, method="edgeprefix", seed=0, rows=ROWS, steps=0)).train
    data = load_data(rows, rows[:2], tokenizer=base.tokenizer, prompt=PROMPT, max_tokens=400)
    generator = torch.Generator().manual_seed(0)
    prefix = [
        (
            torch.randn(
                shape.kv_heads, LENGTH, shape.key_size, generator=generator
            ).requires_grad_(),
            torch.randn(
                shape.kv_heads, LENGTH, shape.value_size, generator=generator
            ).requires_grad_(),
        )
        for shape in base.layers
    ]
    mixed = random.Random(0).sample(list(data.train), len(data.train))
    batches = [mixed[at : at + BATCH] for at in range(0, len(mixed), BATCH)]
    padded, packed = (dataclasses.replace(base, route=route) for route in ("shared", "packed"))
    ways: dict[str, tuple[FrozenModel, list[list[list[Example]]]]] = {
        "padded": (padded, [[batch] for batch in batches])
    }
    for name, reader, sizes in (
        ("padded", padded, PADDED_TOKENS),
        ("packed", packed, PACKED_TOKENS),
    ):
        for tokens in sizes:
            ways[f"{name}, {tokens}"] = (
                reader,
                [groups_of_like_length(batch, tokens) for batch in batches],
            )

    def seconds(reader: FrozenModel, plan: Sequence[Sequence[Sequence[Example]]]) -> float:
        objective = Objective(base=reader, name="target", metric_name="loss")
        began = time.perf_counter()
        for groups in plan:
            for group in groups:
                objective.loss(prefix, group).backward()  # type: ignore[no-untyped-call]
        return (time.perf_counter() - began) / len(plan)

    turns = [
        {way: seconds(*way_of) for way, way_of in ways.items()} for _ in range(options.rounds + 1)
    ][1:]
    return {way: round(1000 * statistics.median(turn[way] for turn in turns), 1) for way in ways}


if __name__ == "__main__":
    main()
