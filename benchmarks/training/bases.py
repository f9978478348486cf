"""Whether the trainer's own choices harm any base: short runs with nothing but base and data, on
bases of many kinds.

    python benchmarks/training/bases.py [BASE ...] [--work DIR] [--out FILE]

The bases are the embedded one, those of ../shared/models, three random ones, and the real one where
EDGEPREFIX_REAL_BASE names the folder that holds it; or those that are given. Each run is kept in
--work: a finished one is read, an interrupted one goes on. What was measured and chosen, the base
alone and every validation are printed and written. Needs ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from data import PROMPT, SHARED, missing
from run import ROOT, machine, today

from edgeprefix.train import PrefixConfig, TrainConfig, train_prefix

STEPS, EVERY, ROWS, HELD_OUT = 30, 10, 1500, 16
LENGTH, BATCH = 40, 8


def main() -> None:
    """Runs what is missing, prints a line each, writes all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bases", nargs="*", type=Path, metavar="BASE")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "bases")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if reason := missing("e2e"):
        sys.exit(f"skipped: {reason}")
    records = []
    for base in options.bases or known_bases(options.work):
        record = measured(base, options.work / "runs" / base.name)
        print(json.dumps(record))
        records.append(record)
    if options.out:
        result = {"date": today(), "machine": machine(), "bases": records}
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def known_bases(work: Path) -> list[Path]:
    """All that there are here; the random ones are made."""
    found = [ROOT / "demo" / "base", SHARED.parent / "models" / "stories260K"]
    real = os.environ.get("EDGEPREFIX_REAL_BASE")
    if real:
        found.append(Path(real) / "gemma-3-270m")
    return [*found, *random_bases(work / "random")]


def random_bases(folder: Path) -> list[Path]:
    """Three architectures with random weights, as the tests have them."""
    sys.path.insert(0, str(ROOT / "tests"))
    from tiny import save_checkpoint, tiny_gpt2, tiny_llama, tiny_mistral

    made = {
        "random-llama": tiny_llama,
        "random-gpt2": tiny_gpt2,
        "random-mistral": lambda: tiny_mistral(window=192),  # wide enough to see the prefix
    }
    return [save_checkpoint(make(), folder / name) for name, make in made.items()]


def measured(base: Path, run: Path) -> dict[str, Any]:
    """One base's run."""
    if "result" not in _facts(run):
        train_prefix(
            base,
            _rows("train", ROWS),
            _rows("validation", HELD_OUT),
            task="e2e",
            out=run,
            prompt=PROMPT,
            prefix=PrefixConfig(length=LENGTH),
            train=TrainConfig(steps=STEPS, batch_size=BATCH, validate_every=EVERY, max_tokens=200),
            resume=(run / "last.safetensors").exists(),
        )
    facts = _facts(run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    validations = [line for line in lines if "validation_loss" in line]
    return {
        "base": base.name,
        "plan": facts["settings"]["plan"],
        "train_rows": facts["data"]["train_rows"],
        "validation_rows": facts["data"]["validation_rows"],
        "choice": facts["settings"]["choice"],
        "base_alone": facts["baseline"]["validation_loss"],
        "validations": {line["step"]: round(line["validation_loss"], 4) for line in validations},
        "not_worse": validations[0]["validation_loss"] <= facts["baseline"]["validation_loss"],
        "seconds": facts["result"]["seconds"],
    }


def _facts(run: Path) -> dict[str, Any]:
    file = run / "run.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _rows(split: str, count: int) -> list[dict[str, str]]:
    """The first rows; of the validation rows those with one reference each."""
    lines = (SHARED / "e2e" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    firsts = list({row["input"]: row for row in reversed(rows)}.values())[::-1]
    chosen = rows if split == "train" else firsts
    return [{"input": row["input"], "target": row["target"]} for row in chosen[:count]]


if __name__ == "__main__":
    main()
