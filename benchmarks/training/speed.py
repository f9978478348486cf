"""Training speed and peak memory: our trainer against PEFT's prefix tuning under transformers'
Trainer, on the same job.

python benchmarks/training/speed.py [--base FOLDER] [--steps 60] [--rounds 5] [--data e2e]
    [--batch-size 16] [--length 100] [--out FILE]

Both train a prefix of the same length on the same rows, on all cores; turns alternate, each in a
process of its own. The ratio is taken within a round, and its median over the rounds counts. Give
the machine nothing else to do. Beside the real base: --base $EDGEPREFIX_REAL_BASE/gemma-3-270m.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cells import Cell
from data import rows_of
from run import ROOT, machine, today

METHODS = ("edgeprefix-text", "peft-prefix")  # start and rate given: nothing is measured for them
_RATE = 0.01
_ROWS = 2000  # encoding more of them takes longer than training, and is not what is measured


def main() -> None:
    """Rounds of one turn each, then the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, default=ROOT / "demo" / "base")
    parser.add_argument("--data", default="e2e")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--length", type=int, default=100)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(train(Cell(**json.loads(options.one)), options.base)))
        return
    rounds = [
        {method: in_process(method, options) for method in METHODS} for _ in range(options.rounds)
    ]
    result = summary(rounds) | {
        "base": options.base.name,
        "steps": options.steps,
        "batch_size": options.batch_size,
        "length": options.length,
        "data": options.data,
        "date": today(),
        "machine": machine(),
    }
    print(
        json.dumps(
            {name: value for name, value in result.items() if name not in ("rounds", "machine")},
            indent=1,
        )
    )
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def in_process(method: str, options: argparse.Namespace) -> dict[str, Any]:
    """One turn in a process of its own."""
    cell = Cell(
        data=options.data,
        method=method,
        seed=0,
        rows=_ROWS,
        steps=options.steps,
        batch_size=options.batch_size,
        length=options.length,
        lr=_RATE,
    )
    command = [
        sys.executable,
        __file__,
        "--base",
        str(options.base),
        "--one",
        json.dumps(asdict(cell)),
    ]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "TQDM_DISABLE": "1"},
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def train(cell: Cell, base: Path) -> dict[str, Any]:
    """Seconds of the training itself, tokens/s without padding, and the process's peak memory."""
    from ours import train_ours
    from theirs import train_theirs

    with tempfile.TemporaryDirectory(prefix="edgeprefix-speed-") as folder:
        train_one = train_ours if cell.method.startswith("edgeprefix") else train_theirs
        facts = train_one(cell, rows_of(cell), base, Path(folder))[-1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": facts["seconds"], "tokens_per_s": facts["tokens_per_s"], "peak_bytes": peak}


def summary(rounds: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Medians, and ours against theirs within a round: median, least, most."""
    ours, theirs = METHODS
    ratios = [one[ours]["tokens_per_s"] / one[theirs]["tokens_per_s"] for one in rounds]
    return {
        "tokens_per_s": {
            name: statistics.median(one[name]["tokens_per_s"] for one in rounds) for name in METHODS
        },
        "peak_bytes": {
            name: statistics.median(one[name]["peak_bytes"] for one in rounds) for name in METHODS
        },
        "ratio": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
        "rounds": rounds,
    }


if __name__ == "__main__":
    main()
