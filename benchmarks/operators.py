"""Where the time goes: ONNX Runtime's own profile of a decoder graph, by kind of operator.

    python benchmarks/operators.py BUNDLE [--json benchmarks/results/operators-NAME-DATE.json]

Three jobs, each in a session of its own with profiling on: a prompt of 128 tokens, a decoding step
of one row, and one of eight. For each kind of operator: its nodes and milliseconds in one run, the
median over the runs. Profiling itself costs a few microseconds a node, which the difference between
"kernels" and "run" shows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from engine_session import PROMPT, ROWS, opened

from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.decoding.decoder import Decoder
from edgeprefix.runtime.decoding.quiet_ort import ort

RUNS, WARM = 12, 3

JOBS: dict[str, Callable[[Decoder, Any], object]] = {
    "prompt of 128": lambda decoder, prompt: decoder.feed(0, prompt, start=0, wanted=[-1]),
    "step of 1 row": lambda decoder, prompt: decoder.step([1], [PROMPT]),
    "step of 8 rows": lambda decoder, prompt: decoder.step([1] * ROWS, [PROMPT] * ROWS),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    manifest = Manifest.load(arguments.bundle)
    jobs = {name: profiled(arguments.bundle, manifest, job) for name, job in JOBS.items()}
    for name, job in jobs.items():
        print(f"{name}: {job['run_ms']} ms, kernels {job['kernels_ms']} ms")
        for operator, cost in job["operators"].items():
            print(
                f"  {operator:32} {cost['nodes']:4} nodes  {cost['ms']:8.3f} ms  "
                f"{cost['ms'] / job['kernels_ms']:5.0%}"
            )
    facts = {
        "base": manifest.base.name,
        "precision": manifest.precision,
        "cores": os.cpu_count(),
        "runs": RUNS,
        "load_average": list(os.getloadavg()),
        "onnxruntime": ort.__version__,
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    if arguments.json:
        if arguments.json.exists():
            sys.exit(f"{arguments.json} exists already: results are not overwritten")
        arguments.json.write_text(
            json.dumps({"facts": facts, "jobs": jobs}, indent=1) + "\n", encoding="utf-8"
        )


def profiled(
    bundle: Path, manifest: Manifest, job: Callable[[Decoder, Any], object]
) -> dict[str, Any]:
    """Runs a job with profiling on: milliseconds of a run, of its kernels, and of each kind of
    operator.
    """
    prompt = np.random.default_rng(0).integers(0, manifest.vocabulary, PROMPT)
    with tempfile.TemporaryDirectory(prefix="edgeprefix-operators-") as folder:

        def profile(options: Any) -> None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")

        decoder, _ = opened(bundle, manifest, profile)
        for _ in range(WARM + RUNS):
            job(decoder, prompt)
        events = json.loads(Path(decoder.graph.session.end_profiling()).read_text(encoding="utf-8"))
    runs = [event["dur"] / 1000 for event in events if event["name"] == "model_run"][WARM:]
    operators = by_operator([event for event in events if event["name"].endswith("_kernel_time")])
    kernels = sum(cost["ms"] for cost in operators.values())
    return {
        "run_ms": round(statistics.median(runs), 3),
        "kernels_ms": round(kernels, 3),
        "operators": operators,
    }


def by_operator(events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each kind of operator's nodes and milliseconds in one run, dearest first; a node's time is
    its median over the runs.
    """
    nodes: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        nodes[event["args"]["op_name"], event["name"]].append(event["dur"] / 1000)
    costs: dict[str, list[float]] = defaultdict(list)
    for (operator, _), durations in nodes.items():
        costs[operator].append(statistics.median(durations[WARM:]))
    ranked = sorted(costs.items(), key=lambda item: -sum(item[1]))
    return {
        operator: {"nodes": len(times), "ms": round(sum(times), 3)} for operator, times in ranked
    }


if __name__ == "__main__":
    main()
