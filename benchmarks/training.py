"""Training: quality and speed against PEFT with transformers' Trainer, on the same base, rows, steps and validation rows.

Methods: `edgeprefix` (our default), `edgeprefix-text`, `edgeprefix-vocab`, `edgeprefix-mlp`, `peft-prefix` (PREFIX_TUNING, its
random start), `peft-lora` (rank chosen for about as many trained numbers), `full` (all weights), each in a process of its own
so that peak memory is its own. Learning rates: ours by default; PEFT's and full fine-tuning's the best of a few tries, given
in LEARNING_RATES. Validation loss is per target token, in nats, measured by one and the same code for all methods.

    python benchmarks/training.py --data e2e --steps 300
    python benchmarks/training.py --data e2e --steps 40 --methods edgeprefix,peft-prefix     # speed only

Needs ../shared/data and the package peft; says so when one is missing. Prints a table, then one JSON line; writes
benchmarks/results/training-<data>-<date>[-n].json and never overwrites a result.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
PROMPT = "{input}\n"
METHODS = ("edgeprefix", "edgeprefix-text", "edgeprefix-mlp", "peft-prefix", "peft-lora", "full")
LEARNING_RATES = {"peft-prefix": 1e-1, "peft-lora": 5e-3, "full": 1e-3}
VALIDATION_ROWS = 128


def main() -> None:
    """Runs every method in a process of its own and writes the result."""
    options = parse_options()
    if options.one:
        print(json.dumps(run_one(options)))
        return
    folder = SHARED / options.data
    if not (folder / "train.jsonl").exists():
        print(f"skipped: {folder} does not hold train.jsonl and validation.jsonl")
        return
    rows = [measured(method, seed, options) for method in options.methods.split(",") for seed in range(options.seeds)]
    result = {
        "benchmark": "training",
        "command": " ".join(["python", "benchmarks/training.py", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "base": Path(options.base).name,
        "rows": rows,
    }
    path = free_path(time.strftime(f"training-{options.data}-%Y-%m-%d", time.gmtime()))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print_table(result)
    print(json.dumps(rows))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=str(ROOT / "demo" / "base"))
    parser.add_argument("--data", default="e2e", help="a folder of ../shared/data")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--length", type=int, default=100)
    parser.add_argument("--rows", type=int, default=0, help="only that many training rows; 0 takes all")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(method: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    command = [
        sys.executable, __file__, "--one", method, "--seed", str(seed), "--base", options.base, "--data", options.data,
        "--steps", str(options.steps), "--batch-size", str(options.batch_size), "--length", str(options.length),
        "--rows", str(options.rows),
    ]  # fmt: skip
    print(f"{method}, seed {seed} …", file=sys.stderr)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"method": method, "seed": seed, "failed": done.stderr.strip().splitlines()[-1]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run_one(options: argparse.Namespace) -> dict[str, Any]:
    """One method; the facts of its row."""
    with tempfile.TemporaryDirectory(prefix="edgeprefix-training-") as work:
        train = limited(SHARED / options.data / "train.jsonl", options.rows, Path(work))
        kind = options.one.split("-")[0]
        row = ours(options, train, Path(work)) if kind == "edgeprefix" else theirs(options, train, Path(work))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"method": options.one, "seed": options.seed, **row, "peak_bytes": peak}


def limited(path: Path, rows: int, work: Path) -> Path:
    if not rows:
        return path
    few = work / "few.jsonl"
    few.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:rows]), encoding="utf-8")
    return few


def ours(options: argparse.Namespace, train: Path, work: Path) -> dict[str, Any]:
    from edgeprefix.train import PrefixConfig, TrainConfig, train_prefix

    variant = options.one.partition("-")[2]
    prefix = PrefixConfig(
        length=options.length,
        reparam=variant == "mlp",
        init=variant if variant in ("text", "vocab") else PrefixConfig().init,
    )
    result = train_prefix(
        options.base, train, SHARED / options.data / "validation.jsonl", task="benchmark", out=work / "run", prompt=PROMPT,
        prefix=prefix, train=TrainConfig(
            steps=options.steps, batch_size=options.batch_size, seed=options.seed, metric="loss",
            validation_rows=VALIDATION_ROWS, validate_every=options.steps,
        ),
    )  # fmt: skip
    return {
        "validation_loss": round(result.validation_loss, 4),
        "trained_numbers": result.parameters,
        "seconds": round(result.seconds, 1),
        "tokens_per_s": round(result.tokens_per_s),
        "file_bytes": result.prefix_path.stat().st_size,
    }


def theirs(options: argparse.Namespace, train: Path, work: Path) -> dict[str, Any]:
    """PEFT or plain fine-tuning with transformers' Trainer, bf16 where ours takes bf16."""
    import torch
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    from edgeprefix.train import load_base
    from edgeprefix.train.batches import sample
    from edgeprefix.train.data import load_data

    base = load_base(options.base)
    data = load_data(
        train, SHARED / options.data / "validation.jsonl", tokenizer=base.tokenizer, prompt=PROMPT,
        max_tokens=base.max_positions - options.length,
    )  # fmt: skip
    torch.manual_seed(options.seed)
    model = adapted(AutoModelForCausalLM.from_pretrained(options.base, dtype=torch.float32), options, base)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    arguments = TrainingArguments(
        output_dir=str(work / "trainer"), max_steps=options.steps, per_device_train_batch_size=options.batch_size,
        learning_rate=LEARNING_RATES[options.one], warmup_steps=max(1, options.steps // 20), lr_scheduler_type="linear",
        weight_decay=0.0, bf16=base.precision == "bf16", use_cpu=base.device.type == "cpu", report_to=[], save_strategy="no",
        logging_strategy="no", seed=options.seed, remove_unused_columns=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=list(data.train), data_collator=padded)
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    tokens = options.steps * options.batch_size * sum(example.length - 1 for example in data.train) / len(data.train)
    held_out = sample(data.validation, VALIDATION_ROWS, 0)
    return {
        "validation_loss": round(loss_of(model.eval(), held_out, base.precision), 4),
        "trained_numbers": trained,
        "seconds": round(seconds, 1),
        "tokens_per_s": round(tokens / seconds),
        "file_bytes": trained * 4,
    }


def adapted(model: Any, options: argparse.Namespace, base: Any) -> Any:
    """The model with PEFT's adapter, or as it is for full fine-tuning."""
    if options.one == "full":
        return model
    from peft import LoraConfig, PrefixTuningConfig, get_peft_model

    if options.one == "peft-prefix":
        config: Any = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=options.length)
    else:
        wanted = sum(options.length * shape.kv_heads * (shape.key_size + shape.value_size) for shape in base.layers)
        one = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=1))
        per_rank = sum(weight.numel() for weight in one.parameters() if weight.requires_grad)
        model = one.unload()
        config = LoraConfig(task_type="CAUSAL_LM", r=max(1, round(wanted / per_rank)), lora_alpha=16)
    return get_peft_model(model, config)


def padded(examples: list[Any]) -> dict[str, Any]:
    """Right-padded ids with a mask; only target tokens are labels."""
    import torch

    length = max(example.length for example in examples)
    ids, labels = torch.zeros(len(examples), length, dtype=torch.long), torch.full((len(examples), length), -100)
    mask = torch.zeros(len(examples), length, dtype=torch.long)
    for row, example in enumerate(examples):
        ids[row, : example.length] = torch.tensor(example.prompt + example.target)
        labels[row, len(example.prompt) : example.length] = torch.tensor(example.target)
        mask[row, : example.length] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def loss_of(model: Any, examples: list[Any], precision: str) -> float:
    """Mean cross-entropy per target token, as ours is measured."""
    import torch

    total, count = 0.0, 0
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        for at in range(0, len(examples), 16):
            batch = padded(examples[at : at + 16])
            labels = batch.pop("labels")
            logits = model(**batch).logits.float()[:, :-1]
            wanted = labels[:, 1:]
            total += float(
                torch.nn.functional.cross_entropy(
                    logits.reshape(-1, logits.shape[-1]), wanted.reshape(-1), ignore_index=-100, reduction="sum"
                )
            )
            count += int((wanted != -100).sum())
    return total / count


def machine() -> dict[str, Any]:
    import importlib.metadata

    packages = ("torch", "transformers", "peft", "accelerate")
    versions = {name: importlib.metadata.version(name) for name in packages if _installed(name)}
    return {"platform": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version(), **versions}


def _installed(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def free_path(stem: str) -> Path:
    path, number = RESULTS / f"{stem}.json", 2
    while path.exists():
        path, number = RESULTS / f"{stem}-{number}.json", number + 1
    return path


def print_table(result: dict[str, Any]) -> None:
    print(f"base {result['base']}; {result['command']}")
    print(f"{'method':18} {'seed':>4} {'val. loss':>9} {'trained':>10} {'seconds':>8} {'tokens/s':>9} {'peak MB':>8}")
    for row in result["rows"]:
        if "failed" in row:
            print(f"{row['method']:18} {row['seed']:>4} failed: {row['failed']}")
            continue
        print(
            f"{row['method']:18} {row['seed']:>4} {row['validation_loss']:9.4f} {row['trained_numbers']:10,} "
            f"{row['seconds']:8.1f} {row['tokens_per_s']:9,} {row['peak_bytes'] / 1e6:8.0f}"
        )


if __name__ == "__main__":
    main()
