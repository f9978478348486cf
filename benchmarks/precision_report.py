"""What does each precision cost, and what does it keep? File size, memory, agreement with torch, a
task's score, time.

    edgeprefix demo --out DEMO python benchmarks/precision_report.py --base demo/base --text FILE
    --demo DEMO [--task triage] [--json results.json]

Each precision of the weights, and the int8 cache beside fp32 and int4 weights, is exported from the
same base. *bundle* is the folder; *peak* the peak resident memory (VmHWM) of a fresh process that
opens it for 8 sequences of 1,024 positions and generates 64 tokens behind the task's prefix;
*cache* what these 8 sequences hold. *KL* (nats) and *top-1* compare the next-token distributions on
`--tokens` of a real text, in windows of 256, with fp32 torch. *task* is the share of the task's
test rows that are answered exactly, by greedy decoding behind its prefix, which was trained on fp32
weights. *step* is the median time of a decode step of one sequence with 900 tokens in its cache,
one thread. The last line is the table as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from edgeprefix.base import Base, load_base
from edgeprefix.cli.rows import read_rows
from edgeprefix.export import export_decoder
from edgeprefix.runtime import Engine, Request
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.decoding.decoder import SlotDecoder
from edgeprefix.runtime.decoding.opening import CacheSize, open_decoder

KINDS = (
    ("fp32", None),
    ("fp32", "int8"),
    ("fp16", None),
    ("int8", None),
    ("int4", None),
    ("int4", "int8"),
)
WINDOW = 256  # tokens of a text that are seen together
ROWS, CAPACITY, LONG = 8, 1024, 900


def main() -> None:
    options = _options()
    base = load_base(options.base)
    if base.tokenizer is None:
        raise SystemExit(f"{options.base} has no tokenizer")
    ids = base.tokenizer.encode(
        Path(options.text).read_text(encoding="utf-8")[: options.tokens * 8]
    ).ids
    count = min(options.tokens, len(ids)) // WINDOW
    text = torch.tensor(ids[: count * WINDOW]).view(-1, WINDOW)
    expected = _torch_log_probabilities(base, text)
    rows = []
    print(
        f"{'weights':<8}{'cache':<7}{'bundle MB':>10}{'peak MB':>9}{'cache MB':>9}"
        f"{'KL':>10}{'top-1':>8}{'task':>8}{'step ms':>9}"
    )
    with tempfile.TemporaryDirectory() as name:
        for precision, cache in KINDS:
            folder = Path(name) / f"{precision}-{cache}"
            manifest = export_decoder(
                options.base, folder, precision=precision, cache=cache, verify=False
            )
            row = {"precision": precision, "cache": manifest.cache_dtype} | _measured(
                folder, manifest, text, expected, options
            )
            rows.append(row)
            print(
                f"{precision:<8}{cache or 'same':<7}{row['bundle_bytes'] / 1e6:>10.2f}"
                f"{row['peak_bytes'] / 1e6:>9.0f}"
                f"{row['cache_bytes'] / 1e6:>9.1f}{row['kl']:>10.5f}{row['top1']:>8.2%}"
                f"{row['task']:>8.1%}{row['step_ms']:>9.3f}",
                flush=True,
            )
    result = {
        "benchmark": "precision_report",
        "base": base.identity.name,
        "tokens": text.numel(),
        "task": options.task,
        "onnxruntime": onnxruntime.__version__,
        "rows": rows,
    }
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def _measured(
    bundle: Path,
    manifest: Manifest,
    text: torch.Tensor,
    expected: torch.Tensor,
    options: argparse.Namespace,
) -> dict[str, Any]:
    prefix, data = (
        options.demo / part
        for part in (f"prefixes/{options.task}.safetensors", f"data/{options.task}/test.jsonl")
    )
    decoder = open_decoder(bundle, manifest, CacheSize(rows=1, capacity=CAPACITY), threads=1)
    found = torch.from_numpy(
        np.stack([decoder.feed(0, row, start=0) for row in text.numpy()])
    ).log_softmax(-1)
    memory = _child(bundle, prefix)
    return {
        "bundle_bytes": sum(record.bytes for record in manifest.files.values()),
        "peak_bytes": memory["peak"],
        "cache_bytes": memory["cache"],
        "kl": float((expected.exp() * (expected - found)).sum(-1).mean()),
        "top1": float((expected.argmax(-1) == found.argmax(-1)).float().mean()),
        "task": _exact_answers(bundle, prefix, data, options.rows),
        "step_ms": _step_ms(decoder, text.flatten().numpy()),
    }


def _child(bundle: Path, prefix: Path) -> dict[str, float]:
    """Peak memory and cache of a fresh process, in bytes."""
    program = (
        "import json, re, sys\n"
        "from edgeprefix.runtime import Engine\n"
        f"with Engine.load(sys.argv[1], prefixes=sys.argv[2], max_batch={ROWS}, "
        f"max_length={CAPACITY}, threads=1) as engine:\n"
        "    engine.generate('The', task=engine.tasks()[0].name, max_new_tokens=64)\n"
        "    peak = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) * "
        "1024\n"
        "    print(json.dumps({'peak': peak, 'cache': engine.cache_bytes}))\n"
    )
    command = [sys.executable, "-c", program, str(bundle), str(prefix)]
    found: dict[str, float] = json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
    )
    return found


def _exact_answers(bundle: Path, prefix: Path, data: Path, count: int) -> float:
    rows = list(read_rows(data, required=["input", "target"]))[:count]
    with Engine.load(bundle, prefixes=prefix, max_batch=ROWS, max_length=256, threads=1) as engine:
        name = engine.tasks()[0].name
        answers = engine.generate_many(
            [Request(row["input"], task=name, max_new_tokens=24) for row in rows]
        )
    return statistics.fmean(
        answer.text.strip() == row["target"].strip()
        for answer, row in zip(answers, rows, strict=True)
    )


def _step_ms(decoder: SlotDecoder, tokens: Any) -> float:
    ids = np.resize(tokens, LONG)
    decoder.feed(0, ids, start=0, wanted=[])
    times = []
    for index in range(60):
        started = time.perf_counter()
        decoder.step([int(ids[index])], [LONG + 1 + index])
        times.append(time.perf_counter() - started)
    return statistics.median(times[10:]) * 1e3


def _torch_log_probabilities(base: Base, text: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.stack([base.model(row[None]).logits[0].log_softmax(-1) for row in text])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True)
    parser.add_argument("--text", required=True, help="a text file")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument(
        "--demo", type=Path, required=True, help="folder that `edgeprefix demo --out` wrote"
    )
    parser.add_argument("--task", default="triage")
    parser.add_argument("--rows", type=int, default=200, help="test rows of the task")
    parser.add_argument("--json", help="file to write the result to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
