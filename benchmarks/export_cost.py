"""What exporting costs, and how large bundles are beside llama.cpp's files of the same weights.

    python -m benchmarks.race convert --models gpt2-124m,smollm2-135m        # makes checkpoints,
    and llama.cpp's files python benchmarks/export_cost.py WORK/checkpoints/gpt2-124m
    WORK/checkpoints/smollm2-135m --gguf WORK/models/llama

Each export is the command `edgeprefix export decoder`, verification included, in a process of its
own; peak memory is that process's resident set. Prints a table and writes
benchmarks/results/export_cost-<date>.json (never overwritten).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
GGUF = {"int4": "q4_0", "int8": "q8_0"}
"""llama.cpp's format of about the same bits."""


def main() -> None:
    """Exports every checkpoint in every precision."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--precisions", default="int4,int8")
    parser.add_argument("--gguf", type=Path, help="folder with MODEL/…/*.gguf")
    options = parser.parse_args()
    rows = [
        measured(checkpoint, precision, options.gguf)
        for checkpoint in options.checkpoints
        for precision in options.precisions.split(",")
    ]
    result = {
        "benchmark": "export_cost",
        "command": " ".join(["python", "benchmarks/export_cost.py", *map(str, sys.argv[1:])]),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "rows": rows,
    }
    with open(
        RESULTS / time.strftime("export_cost-%Y-%m-%d.json", time.gmtime()), "x", encoding="utf-8"
    ) as file:
        file.write(json.dumps(result, indent=2) + "\n")


def measured(checkpoint: Path, precision: str, gguf: Path | None) -> dict[str, Any]:
    """One export: seconds, peak resident bytes, bytes of the bundle, and how many times llama.cpp's
    file that is.
    """
    with tempfile.TemporaryDirectory(prefix="edgeprefix-export-") as work:
        bundle = Path(work) / "bundle"
        command = [
            "edgeprefix",
            "export",
            "decoder",
            str(checkpoint),
            "--out",
            str(bundle),
            "--precision",
            precision,
            "--quiet",
        ]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        if status:
            raise SystemExit(f"{' '.join(command)} failed with status {status}")
        size = sum(file.stat().st_size for file in bundle.glob("decoder.onnx*"))
    row: dict[str, Any] = {
        "model": checkpoint.name,
        "precision": precision,
        "seconds": round(seconds, 1),
        "peak_bytes": usage.ru_maxrss * 1024,
        "checkpoint_bytes": sum(file.stat().st_size for file in checkpoint.glob("*.safetensors")),
        "graph_bytes": size,
    }
    row |= beside(size, checkpoint.name, precision, gguf)
    print(json.dumps(row), flush=True)
    return row


def beside(size: int, model: str, precision: str, gguf: Path | None) -> dict[str, Any]:
    """llama.cpp's file of the same weights, where there is one."""
    wanted = GGUF.get(precision)
    files = (
        [] if gguf is None or wanted is None else sorted(gguf.glob(f"{model}/{precision}/*.gguf"))
    )
    if not files:
        return {}
    other = files[0].stat().st_size
    return {"gguf": wanted, "gguf_bytes": other, "ratio": round(size / other, 3)}


if __name__ == "__main__":
    main()
