"""How good a trained method is: one and the same code for all, over a base's folder and a prefix.

LoRA is merged and fully tuned weights are saved, so both are bases of their own without a prefix;
PEFT's prefixes come in by `edgeprefix export prefix`. So a difference between methods is a
difference of what they learnt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from cells import METRIC, Cell
from data import PROMPT, PROSE_TOKENS, Rows, prose

from edgeprefix.runtime import Prefix
from edgeprefix.train import FrozenModel, load_base
from edgeprefix.train.data import load_data
from edgeprefix.train.evaluate import measure, target_loss

_CHUNK = 256


def judged(cell: Cell, rows: Rows, base: Path, prefix: Prefix | None) -> dict[str, Any]:
    """Held-out loss per target token in nats, the task's metric, and the loss of prose without the
    prefix.
    """
    loaded = load_base(base, precision="fp32")
    return task_scores(cell, rows, loaded, prefix) | {"prose_loss": _prose_loss(loaded)}


def task_scores(
    cell: Cell, rows: Rows, base: FrozenModel, prefix: Prefix | None
) -> dict[str, float]:
    """Held-out loss per target token in nats, and the task's metric."""
    tensors = [] if prefix is None else adapter_tensors(prefix)
    data = load_data(
        rows.held_out, rows.held_out, tokenizer=base.tokenizer, prompt=PROMPT, labels=rows.labels,
        max_tokens=base.max_positions - cell.length,
    )  # fmt: skip
    metric = METRIC[cell.data]
    score = measure(base, tensors, data.validation, metric=metric, labels=rows.labels)
    scale = 100 if metric == "accuracy" else 1
    return {
        "loss": round(target_loss(base, tensors, data.validation), 4),
        metric: round(scale * score, 2),
    }


def adapter_tensors(prefix: Prefix) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values [H, P, D] of each layer."""
    return [
        (torch.from_numpy(layer.key.copy()), torch.from_numpy(layer.value.copy()))
        for layer in prefix.layers
    ]


@torch.no_grad()
def _prose_loss(base: FrozenModel) -> float | None:
    """Mean loss per token of general text, as the weights now are, with nothing in front."""
    text = prose()
    if text is None:
        return None
    ids = base.tokenizer.encode_piece(text)[:PROSE_TOKENS]
    rows = torch.tensor(ids[: len(ids) // _CHUNK * _CHUNK]).view(-1, _CHUNK)
    total = 0.0
    for chunk in rows:
        logits = base.logits([], chunk[None, :-1])
        total += float(torch.nn.functional.cross_entropy(logits, chunk[1:]))
    return round(total / len(rows), 6)
