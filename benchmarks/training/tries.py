"""One training with other settings, judged on validation rows: how the defaults were found, and the
rates of PEFT's methods.

    python benchmarks/training/tries.py --data e2e --steps 200 lr=0.2 value_lr_ratio=1 python
    benchmarks/training/tries.py --data banking77 --steps 400 betas=0.9,0.99 python
    benchmarks/training/tries.py --data clinc150_domain --steps 600 --method peft-lora lr=0.01

Settings are fields of PrefixConfig and TrainConfig, or names of `variants.py`. The result is
printed and appended to --results. Needs ../shared/data.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from cells import METHODS, METRIC, Cell
from data import PROMPT, Rows, missing, rows_of
from judge import task_scores
from run import ROOT, today
from variants import VARIANTS

from edgeprefix.runtime import Prefix
from edgeprefix.train import PrefixConfig, TrainConfig, load_base, train_prefix


def main() -> None:
    """Trains, judges, prints and appends."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE")
    parser.add_argument("--data", default="e2e", choices=sorted(METRIC))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=0, help="training rows; all when 0")
    parser.add_argument("--method", default="edgeprefix", choices=METHODS)
    parser.add_argument("--base", type=Path, default=ROOT / "demo" / "base")
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    if reason := missing(options.data):
        sys.exit(f"skipped: {reason}")
    settings = dict(setting.split("=", 1) for setting in options.settings)
    known = (
        {"lr", "prompt_dropout"}
        if options.method != "edgeprefix"
        else {*VARIANTS, *_names(PrefixConfig), *_names(TrainConfig)}
    )
    if unknown := sorted(settings.keys() - known):
        parser.error(
            f"{', '.join(unknown)}: no such setting of {options.method}; known are "
            f"{', '.join(sorted(known))}"
        )
    cell = Cell(
        data=options.data,
        method=options.method,
        seed=options.seed,
        rows=options.rows,
        steps=options.steps,
    )
    rows = rows_of(cell, "validation")
    with tempfile.TemporaryDirectory(prefix="edgeprefix-try-") as work:
        train = train_ours if options.method == "edgeprefix" else train_theirs
        found = train(cell, rows, options.base, Path(work), settings)
    tried = {name: getattr(cell, name) for name in ("data", "method", "seed", "rows", "steps")} | {
        "settings": settings
    }
    line = json.dumps(tried | found | {"date": today()})
    print(line)
    if options.results:
        with open(options.results, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def train_ours(
    cell: Cell, rows: Rows, base: Path, work: Path, settings: dict[str, str]
) -> dict[str, Any]:
    """Our trainer with these settings."""
    for name in VARIANTS.keys() & settings.keys():
        VARIANTS[name](*(float(number) for number in settings[name].split(",") if number))
    known = {
        "steps": cell.steps,
        "validate_every": cell.steps,
        "seed": cell.seed,
        "batch_size": 16,
        "metric": "loss",
    }
    result = train_prefix(
        base,
        rows.train,
        rows.held_out[:16],
        task="try",
        out=work / "run",
        prompt=PROMPT,
        labels=rows.labels,
        prefix=PrefixConfig(**{"length": cell.length, **_fields(PrefixConfig, settings)}),
        train=TrainConfig(**{**known, **_fields(TrainConfig, settings)}),
    )
    scores = task_scores(
        cell, rows, load_base(base, precision="fp32"), Prefix.load(result.prefix_path)
    )
    return scores | {"seconds": round(result.seconds, 1), "best_step": result.best_step}


def train_theirs(
    cell: Cell, rows: Rows, base: Path, work: Path, settings: dict[str, str]
) -> dict[str, Any]:
    """PEFT's method, or full fine-tuning, with a rate and our shortened prompts."""
    from theirs import train_theirs as train

    from edgeprefix.export.prefix import read_prefix

    cell = dataclasses.replace(cell, lr=float(settings.get("lr", 0)))
    saved, adapter, facts = train(
        cell, rows, base, work, prompt_dropout=float(settings.get("prompt_dropout", 0))
    )
    prefix = None if adapter == saved else read_prefix(adapter, base=base, task="try")
    return task_scores(cell, rows, load_base(saved, precision="fp32"), prefix) | {
        "seconds": facts["seconds"]
    }


def _fields(config: type, settings: dict[str, str]) -> dict[str, Any]:
    """The settings that a configuration has a field for, read as that field's type."""
    return {name: _value(text) for name, text in settings.items() if name in _names(config)}


def _names(config: type) -> set[str]:
    return {field.name for field in dataclasses.fields(config)}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
