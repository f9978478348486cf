"""Training quality and speed: ours against PEFT, full fine-tuning and a few-shot prompt; same base,
rows, steps, batches.

    python benchmarks/training/run.py --data e2e,clinc150_domain,banking77 --seeds 3       # all
    rows python benchmarks/training/run.py --few --data e2e,clinc150_domain --seeds 3           #
    50, 100, 200, 500 rows python benchmarks/training/run.py --data e2e --methods
    edgeprefix,peft-lora --seeds 1 python benchmarks/training/run.py --few --rows 50,100 --methods
    edgeprefix,full --seeds 6 --held-out 5000 --results FILE python benchmarks/training/run.py
    --seeds 1 --methods peft-lora,full --rates 0.002,0.005,0.02 --results rates.jsonl

Each cell runs in a process of its own, so that peak memory is its own. Its result is appended to
the results (RESULTS below, or FEW_RESULTS) at once; cells that stand there are not run again, so an
interrupted run goes on where it was. `tables.py` turns a file into the tables of
docs/lab/training-peft.md and docs/lab/training-few-rows.md. Needs ../shared/data and the package
peft.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cells import FEW, FEW_ROWS, METHODS, OURS, THROUGH_RUNTIME, Cell, few_cells, main_cells
from data import missing, rows_of

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "training-cells-2026-11-26.jsonl"
FEW_RESULTS = RESULTS.with_name("training-few-2026-11-26.jsonl")


def main() -> None:
    """Runs what is still missing."""
    options = parse_options()
    if options.one:
        print(
            json.dumps(
                run_cell(Cell(**json.loads(options.one)), Path(options.base), options.bundles)
            )
        )
        return
    from through_runtime import export_bundles

    wanted = [cell for data in options.data.split(",") for cell in cells_of(data, options)]
    there = {cell.key for cell in recorded(options.results)}
    left = [cell for cell in wanted if cell.key not in there]
    print(f"{len(wanted)} cells, {len(left)} to run", file=sys.stderr)
    with (
        tempfile.TemporaryDirectory(prefix="edgeprefix-bundles-") as bundles,
        ThreadPoolExecutor(options.jobs) as pool,
    ):
        if any(in_bundles(cell) for cell in left):
            # Before cells at once would write the same one
            export_bundles(Path(options.base), Path(bundles))
        for number, record in enumerate(
            pool.map(lambda cell: in_process(cell, options, bundles), left), start=1
        ):
            with open(options.results, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            print(f"{number}/{len(left)} {summary(record)}", file=sys.stderr)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default=str(ROOT / "demo" / "base"))
    parser.add_argument(
        "--data", default="e2e,clinc150_domain,banking77", help="folders of ../shared/data"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--few", action="store_true", help="few rows instead of all")
    parser.add_argument("--rows", default=",".join(map(str, FEW_ROWS)), help="how many, with --few")
    parser.add_argument("--methods", default="", help="only these")
    parser.add_argument(
        "--held-out", type=int, default=0, help="inputs to judge on, instead of the usual number"
    )
    parser.add_argument(
        "--rates", default="", help="peak learning rates to try, instead of each method's own"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="cells at once, each with its share of the cores"
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="of each cell, instead of its share of the cores"
    )
    parser.add_argument(
        "--results",
        type=Path,
        help=(
            "appended to; a file for all rows and one for few in benchmarks/results when not given"
        ),
    )
    parser.add_argument("--bundles", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.results = options.results or (FEW_RESULTS if options.few else RESULTS)
    return options


def cells_of(data: str, options: argparse.Namespace) -> list[Cell]:
    """A data set's cells; none, and a word about it, when it is not there."""
    reason = missing(data) or (
        None if importlib.util.find_spec("peft") else "the package peft is not installed"
    )
    if reason:
        print(f"skipped {data}: {reason}", file=sys.stderr)
        return []
    methods = (
        tuple(options.methods.split(",")) if options.methods else FEW if options.few else METHODS
    )
    counts = [int(count) for count in options.rows.split(",")]
    cells = (
        few_cells(data, options.seeds, methods, counts)
        if options.few
        else main_cells(data, options.seeds, methods)
    )
    rates = [float(rate) for rate in options.rates.split(",")] if options.rates else [0.0]
    return [replace(cell, lr=rate, held_out=options.held_out) for cell in cells for rate in rates]


def recorded(path: Path) -> list[Cell]:
    """The cells that a file of results holds."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [Cell.from_record(json.loads(line)) for line in lines]


def in_process(cell: Cell, options: argparse.Namespace, bundles: str) -> dict[str, Any]:
    """Runs a cell in a process of its own. Raises SystemExit when it fails, with its last line."""
    command = [
        sys.executable,
        __file__,
        "--base",
        options.base,
        "--one",
        json.dumps(asdict(cell)),
        "--bundles",
        bundles,
    ]
    threads = str(options.threads or max(1, (os.cpu_count() or 1) // options.jobs))
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": threads},
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise SystemExit(f"{cell.key} failed: {lines[-1]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run_cell(cell: Cell, base: Path, bundles: Path) -> dict[str, Any]:
    """Trains and judges one cell."""
    from judge import judged
    from ours import few_shot, train_ours
    from theirs import train_theirs
    from through_runtime import through_runtime

    from edgeprefix.export.prefix import read_prefix

    rows = rows_of(cell)
    with tempfile.TemporaryDirectory(prefix="edgeprefix-training-") as folder:
        work, judged_base, prefix = Path(folder), base, None
        facts: dict[str, Any] = {}
        if cell.method in OURS:
            prefix, facts = train_ours(cell, rows, base, work)
        elif cell.method == "few-shot":
            prefix, facts = few_shot(cell, rows, base)
        elif cell.method != "base":
            judged_base, adapter, facts = train_theirs(cell, rows, base, work)
            prefix = (
                read_prefix(adapter, base=base, task="benchmark")
                if adapter != judged_base
                else None
            )
        facts["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        result = judged(cell, rows, judged_base, prefix)
        if prefix is not None and in_bundles(cell):
            result["runtime"] = through_runtime(cell, rows, prefix, bundles)
    return {
        **asdict(cell),
        **facts,
        **result,
        "base": base.name,
        "date": today(),
        "machine": machine(),
    }


def in_bundles(cell: Cell) -> bool:
    """Whether a cell's metric is measured through the runtime too."""
    return cell.method in THROUGH_RUNTIME and not cell.rows


def today() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def machine() -> dict[str, Any]:
    from importlib.metadata import version

    versions = {name: version(name) for name in ("torch", "transformers", "peft", "onnxruntime")}
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return {
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": threads,
        **versions,
    }


def summary(record: dict[str, Any]) -> str:
    metric = next((f"{name} {record[name]}" for name in ("bleu", "accuracy") if name in record), "")
    return (
        f"{record['data']} {record['method']} rows {record['rows']} seed {record['seed']}: loss "
        f"{record['loss']}, {metric}"
    )


if __name__ == "__main__":
    main()
