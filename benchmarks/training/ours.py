"""Our methods: the default, its starts and parametrisations, and the base with a few-shot prompt
(an untrained prefix).
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from cells import Cell
from data import PROMPT, Rows

from edgeprefix.runtime import Prefix
from edgeprefix.runtime.contracts.prefix_file import PrefixLayer
from edgeprefix.train import PrefixConfig, TrainConfig, load_base, train_prefix
from edgeprefix.train.data import encode_example

_VARIANTS: dict[str, dict[str, Any]] = {
    "text": {"init": "text"},
    "vocab": {"init": "vocab"},
    "mlp": {"reparam": True},
    "prompt": {"prompt_tuning": True},
}


def train_ours(cell: Cell, rows: Rows, base: Path, work: Path) -> tuple[Prefix, dict[str, Any]]:
    """Trains a cell; the prefix and the facts of its training."""
    variant = cell.method.partition("-")[2]
    result = train_prefix(
        base,
        rows.train,
        _few(rows.held_out),
        task="benchmark",
        out=work / "run",
        prompt=PROMPT,
        labels=rows.labels,
        prefix=PrefixConfig(length=cell.length, **_VARIANTS.get(variant, {})),
        train=TrainConfig(
            steps=cell.steps,
            batch_size=min(cell.batch_size, len(rows.train)),
            seed=cell.seed,
            metric="loss",
            lr=cell.lr or None,
            validate_every=cell.steps,
            weights="int4" if variant == "int4" else "checkpoint",
        ),
    )
    facts = {
        "rate": result.plan.lr,
        "trained_numbers": result.parameters,
        "seconds": round(result.seconds, 2),
        "tokens_per_s": round(result.tokens_per_s),
        "file_bytes": result.prefix_path.stat().st_size,
    }
    return Prefix.load(result.prefix_path), facts


def few_shot(cell: Cell, rows: Rows, base: Path) -> tuple[Prefix, dict[str, Any]]:
    """As many training rows with their targets as fit into the cell's positions, as the base itself
    reads them.
    """
    loaded = load_base(base, precision="fp32")
    order = random.Random(cell.seed)
    ids: list[int] = []
    while True:
        row = order.choice(rows.train)
        example = encode_example(loaded.tokenizer, PROMPT.format(**row), row["target"])
        if len(ids) + example.length > cell.length:
            break
        ids += example.prompt + example.target
    with torch.no_grad():
        layers = [PrefixLayer(key.numpy(), value.numpy()) for key, value in loaded.key_values(ids)]
    prefix = Prefix(name="few-shot", base=loaded.identity, layers=tuple(layers))
    return prefix, {
        "trained_numbers": 0,
        "seconds": 0.0,
        "tokens_per_s": 0,
        "file_bytes": len(prefix.to_bytes()),
    }


def _few(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The trainer measures once, at the end; what counts is measured by `judge.py`."""
    return rows[:16]
