"""What a prefix is and how it is trained: two small records, checked when they are made.

`None` means "chosen from the data and the base" (see edgeprefix.train.defaults); what was chosen is
printed and stored.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from edgeprefix.runtime.errors import TrainingError

INITS = ("text", "vocab", "random")
AUTO = "auto"
METRICS = ("loss", "accuracy", "bleu", "exact", "kl")
OBJECTIVES = ("auto", "target", "labels", "distill")


@dataclass(frozen=True, kw_only=True)
class PrefixConfig:
    """Shape, start and parametrisation of a prefix."""

    length: int | None = None
    """P, positions."""
    init: str = AUTO
    """"auto" (chosen from the data), "text" (the base's keys and values over `init_text`, or over
    training rows), "vocab" (over random words), "random" (noise of the base's own size), or the
    path of a prefix file of the same base to go on from.
    """
    init_text: str | None = None
    """Text for init "text"; training rows with their targets when not given."""
    reparam: bool = False
    """Learn the prefix as the output of a small MLP, folded into plain keys and values when it is
    saved.
    """
    mlp_width: int = 256
    """Hidden width of that MLP."""
    prompt_tuning: bool = False
    """Train input embeddings instead, and let the base turn them into keys and values."""
    sink: bool = False
    """Keep the first position as it was initialised (the attention sink)."""
    dropout: float | None = None
    """Share of each head's positions that a training step hides; chosen from the number of rows
    when not given.
    """

    def __post_init__(self) -> None:
        _require(
            self.length is None or self.length >= 1,
            f"prefix length is {self.length}, expected at least 1",
        )
        _require(self.mlp_width >= 1, f"mlp_width is {self.mlp_width}, expected at least 1")
        _require(
            self.dropout is None or 0 <= self.dropout < 1,
            f"dropout is {self.dropout}, expected 0 up to but not including 1",
        )
        _require(
            self.init_text is None or self.init in (AUTO, "text"),
            f"an init text was given with init {self.init!r}; it goes with init 'text' only",
        )
        known = ", ".join(INITS)
        _require(
            self.init in (AUTO, *INITS) or self.init.endswith(".safetensors"),
            f"init {self.init!r} is unknown; choose {known}, or give a prefix file (.safetensors)",
        )
        _require(
            not (self.reparam and self.prompt_tuning),
            "reparam and prompt_tuning were both given; choose one",
        )
        _require(
            not (self.prompt_tuning and (self.sink or self.init.endswith(".safetensors"))),
            "prompt_tuning goes neither with sink nor with a prefix file as init",
        )
        _require(
            not (self.sink and self.length == 1),
            "a prefix of length 1 with a frozen sink leaves nothing to train",
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a prefix is trained."""

    steps: int | None = None
    """Optimiser steps; or say `epochs`."""
    epochs: float | None = None
    """Passes over the training rows."""
    lr: float | None = None
    """Peak learning rate of the keys (of the MLP with reparam)."""
    value_lr_ratio: float = 3.0
    """Learning rate of the values over that of the keys."""
    batch_size: int | None = None
    """Rows in one forward pass."""
    accumulation: int = 1
    """Forward passes per optimiser step."""
    warmup: float = 0.02
    """Share of the steps in which the learning rate rises from zero."""
    weight_decay: float = 0.0
    clip: float = 0.0
    """Largest gradient norm; 0 clips nothing."""
    label_smoothing: float = 0.0
    prompt_dropout: float | None = None
    """Share of a prompt's tokens that are left out in a step; chosen when not given."""
    seed: int = 0
    precision: str = "auto"
    """"fp32", "bf16", or "auto": bf16 where the machine multiplies it quickly."""
    device: str = "auto"
    weights: str = "checkpoint"
    """"int8" or "int4" trains on weights rounded as in a bundle of that precision."""
    metric: str | None = None
    """What picks the best checkpoint: loss, accuracy (needs labels), bleu or exact (real
    generation), kl (to the teacher).
    """
    objective: str = "auto"
    """"target": cross-entropy of the target's tokens; "labels": of the right label among all;
    "distill": KL to the teacher.
    """
    validate_every: int | None = None
    """Steps between validations."""
    validation_rows: int = 256
    """Validation rows used at most while training (a seeded sample)."""
    patience: int = 0
    """Validations without a better metric before training stops; 0 never stops early."""
    max_tokens: int | None = None
    """Longest prompt + target in tokens; longer prompts lose their beginning, and the report says
    so.
    """
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    recompute: bool = False
    """Gradient checkpointing: each layer is computed again in the backward pass instead of being
    kept. Less memory, more time.
    """
    tensorboard: bool = False
    """Write the metrics for TensorBoard as well."""

    def __post_init__(self) -> None:
        _require(
            self.steps is None or self.epochs is None,
            "both steps and epochs were given; give one of them",
        )
        for name in ("steps", "epochs", "batch_size", "validate_every", "max_tokens", "lr"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"{name} is {value}, expected more than 0")
        for name in ("accumulation", "log_every", "validation_rows"):
            _require(
                getattr(self, name) >= 1, f"{name} is {getattr(self, name)}, expected at least 1"
            )
        for name in ("weight_decay", "clip", "patience"):
            _require(
                getattr(self, name) >= 0, f"{name} is {getattr(self, name)}, expected 0 or more"
            )
        _require(
            0 <= self.warmup < 1,
            f"warmup is {self.warmup}, expected a share of the steps from 0 to below 1",
        )
        _require(
            0 <= self.label_smoothing < 1,
            f"label_smoothing is {self.label_smoothing}, expected 0 to below 1",
        )
        _require(
            self.prompt_dropout is None or 0 <= self.prompt_dropout < 1,
            f"prompt_dropout is {self.prompt_dropout}, expected 0 up to but not including 1",
        )
        _require(
            self.value_lr_ratio > 0,
            f"value_lr_ratio is {self.value_lr_ratio}, expected more than 0",
        )
        _require(
            self.metric is None or self.metric in METRICS,
            f"metric {self.metric!r} is unknown; choose {', '.join(METRICS)}",
        )
        _require(
            self.objective in OBJECTIVES,
            f"objective {self.objective!r} is unknown; choose {', '.join(OBJECTIVES)}",
        )


def to_json(config: PrefixConfig | TrainConfig) -> dict[str, Any]:
    """Plain values for run.json and the prefix file's recipe."""
    return dataclasses.asdict(config)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise TrainingError(message)
