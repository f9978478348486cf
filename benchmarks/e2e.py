"""The whole pipeline on real data: train → export → runtime on the E2E NLG challenge over the
embedded base.

What is measured: multi-reference BLEU (sacrebleu, lower-cased, tokenizer 13a) of greedy generations
on test_multi.jsonl, made by the exported runtime (numpy + onnxruntime), for the base alone and with
the prefix, at each precision of the bundle.

    python benchmarks/e2e.py --steps 1500            # about ten minutes on 2 cores
    python benchmarks/e2e.py --base HuggingFaceTB/SmolLM2-135M --steps 2000

Needs ../shared/data/e2e (the official splits as JSONL) and says so when it is not there. Prints a
table, then one JSON line; writes benchmarks/results/e2e-<date>[-n].json and never overwrites a
result.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data" / "e2e"
RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    """Parses the options, runs the stages, writes the result."""
    options = parse_options()
    if not (options.data / "train.jsonl").exists():
        print(
            f"skipped: {options.data} does not hold the E2E data (train.jsonl, validation.jsonl, "
            "test_multi.jsonl)"
        )
        return
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="edgeprefix-e2e-") as work:
        result = measure(options, Path(work))
    result["total_s"] = round(time.perf_counter() - began, 1)
    path = free_path(options.results, time.strftime("e2e-%Y-%m-%d", time.gmtime()))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print_table(result)
    print(f"written to {path.name}")
    print(json.dumps({"bleu": result["bleu"], "validation_loss": result["validation_loss"]}))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--base", default=str(ROOT / "demo" / "base"), help="checkpoint folder or hub id"
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument(
        "--steps",
        type=int,
        default=None,
        help="training steps; the trainer's own default when not given",
    )
    parser.add_argument("--length", type=int, default=None)
    parser.add_argument("--lr", type=float, default=None)
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--test-rows", type=int, default=None, help="only the first rows of the test set"
    )
    parser.add_argument(
        "--precisions", default="fp32,int8", help="bundle precisions, comma-separated"
    )
    parser.add_argument("--max-batch", type=int, default=8)
    return parser.parse_args()


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Train, export, run; everything that the result file holds."""
    trained = train(options, work / "run")
    rows = [
        json.loads(line)
        for line in (options.data / "test_multi.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    rows = rows[: options.test_rows]
    scores: dict[str, dict[str, float]] = {}
    samples: list[dict[str, Any]] = []
    for precision in options.precisions.split(","):
        bundle = export(options.base, work / precision, precision)
        scores[precision], samples = run_bundle(
            bundle, trained.prefix_path, rows, options.max_batch
        )
    return {
        "benchmark": "e2e",
        "command": " ".join(["python", "benchmarks/e2e.py", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "base": {"name": trained.base.name, "sha256": trained.base.sha256},
        "data": dataclasses.asdict(trained.report),
        "plan": dataclasses.asdict(trained.plan),
        "validation_loss": {
            "base": trained.base_validation_loss,
            "prefix": trained.validation_loss,
        },
        "training": {
            "steps": trained.steps,
            "best_step": trained.best_step,
            "seconds": round(trained.seconds, 1),
            "tokens_per_s": round(trained.tokens_per_s, 1),
            "trained_numbers": trained.parameters,
        },
        "prefix_bytes": trained.prefix_path.stat().st_size,
        "test_rows": len(rows),
        "bleu": scores,
        "metric": (
            "sacrebleu corpus_bleu, multi-reference, lowercase, 13a, greedy decoding through "
            "edgeprefix.runtime"
        ),
        "samples": samples,
    }


def train(options: argparse.Namespace, run: Path) -> Any:
    from edgeprefix.train import PrefixConfig, Progress, TrainConfig, train_prefix

    def show(progress: Progress) -> None:
        if progress.step % 50 == 0:
            print(
                f"  step {progress.step}/{progress.steps} loss {progress.loss:.3f} "
                f"validation {progress.metric or float('nan'):.3f} "
                f"{progress.seconds_left:.0f} s left",
                file=sys.stderr,
            )

    return train_prefix(
        options.base,
        options.data / "train.jsonl",
        options.data / "validation.jsonl",
        task="e2e",
        out=run,
        prefix=PrefixConfig(length=options.length),
        train=TrainConfig(
            steps=options.steps, lr=options.lr, batch_size=options.batch_size, seed=options.seed
        ),
        licence="CC BY-SA 4.0 (trained on E2E NLG data)",
        progress=show,
    )


def export(base: str, bundle: Path, precision: str) -> Path:
    from edgeprefix.export import export_decoder

    export_decoder(base, bundle, precision=precision)
    return bundle


def run_bundle(
    bundle: Path, prefix: Path, rows: list[dict[str, Any]], max_batch: int
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """BLEU of the base alone and with the prefix, generations per second, and a few samples."""
    import sacrebleu

    from edgeprefix.runtime import Engine, Request

    references = [row["targets"] for row in rows]
    most = max(map(len, references))
    streams = [
        [row[index] if index < len(row) else row[0] for row in references] for index in range(most)
    ]
    scores: dict[str, float] = {}
    texts: dict[str, list[str]] = {}
    with Engine.load(bundle, max_batch=max_batch, max_length=512) as engine:
        task = engine.load_prefix(prefix)
        limit = task.pack.generation.max_new_tokens or 96
        for name, chosen in (("base", None), ("prefix", task.name)):
            began = time.perf_counter()
            requests = [
                Request(
                    row["input"],
                    task=chosen,
                    template=task.pack.prompt,
                    max_new_tokens=limit,
                    temperature=0.0,
                )
                for row in rows
            ]
            texts[name] = [completion.text.strip() for completion in engine.generate_many(requests)]
            seconds = time.perf_counter() - began
            bleu = sacrebleu.corpus_bleu(texts[name], streams, lowercase=True, tokenize="13a")
            scores[name] = round(bleu.score, 2)
            scores[f"{name}_texts_per_s"] = round(len(rows) / seconds, 2)
    samples = [
        {
            "input": rows[at]["input"],
            "base": texts["base"][at],
            "prefix": texts["prefix"][at],
            "reference": references[at][0],
        }
        for at in range(0, len(rows), max(1, len(rows) // 5))
    ]
    return scores, samples


def machine() -> dict[str, Any]:
    import onnxruntime
    import torch
    import transformers

    return {
        "platform": platform.platform(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def free_path(folder: Path, stem: str) -> Path:
    """A result file name that is not taken."""
    path, number = folder / f"{stem}.json", 2
    while path.exists():
        path, number = folder / f"{stem}-{number}.json", number + 1
    return path


def print_table(result: dict[str, Any]) -> None:
    print(
        f"E2E, {result['test_rows']} meaning representations, base {result['base']['name']}, "
        f"{result['command']}"
    )
    print(
        f"{'bundle':8} {'base alone':>12} {'with prefix':>12}   BLEU (multi-reference, "
        "lower-cased, 13a, greedy)"
    )
    for precision, scores in result["bleu"].items():
        print(f"{precision:8} {scores['base']:12.2f} {scores['prefix']:12.2f}")
    training = result["training"]
    print(
        f"validation loss {result['validation_loss']['base']:.3f} -> "
        f"{result['validation_loss']['prefix']:.3f}, "
        f"{training['trained_numbers']:,} trained numbers, {training['steps']} steps in "
        f"{training['seconds']} s, "
        f"prefix file {result['prefix_bytes']:,} bytes"
    )


if __name__ == "__main__":
    main()
