"""What a prefix is and how it is trained: two small records, checked when they are made.

They are the one table of these options (see edgeprefix.runtime.contracts.option): the flags of
`edgeprefix train` and the table in docs/training.md are made of them (`python docs/tables.py`).

`None` means "chosen from the data and the base" (see edgeprefix.train.defaults); what was chosen is
printed and stored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgeprefix.runtime.contracts.option import option, problems
from edgeprefix.runtime.errors import TrainingError

INITS = ("text", "vocab", "random")
AUTO = "auto"
METRICS = ("loss", "accuracy", "bleu", "exact", "kl")
OBJECTIVES = ("auto", "target", "labels", "distill")

_CHOSEN = "chosen"


@dataclass(frozen=True, kw_only=True)
class PrefixConfig:
    """Shape, start and parametrisation of a prefix. Raises TrainingError for values that make no
    sense.
    """

    length: int | None = option(None, "Prefix positions.", least=1, unset=_CHOSEN)
    init: str = option(
        AUTO,
        "The first keys and values: of the base over a text (text) or over random words (vocab), "
        "noise of the base's own size (random), those of a prefix file of the same base; auto "
        "measures them on this base.",
        pattern=rf"{AUTO}|{'|'.join(INITS)}|(?s:.+)\.safetensors",
        expected=f"{AUTO}, {', '.join(INITS)} or a prefix file (.safetensors)",
    )
    init_text: str | None = option(
        None,
        "Text for init text; training rows with their targets when not given.",
        unset="training rows",
    )
    reparam: bool = option(
        False,
        "Learn the prefix as the output of a small MLP, folded into plain keys and values when it "
        "is saved.",
    )
    mlp_width: int = option(256, "Hidden width of that MLP.", least=1)
    prompt_tuning: bool = option(
        False,
        "Train input embeddings only; the base turns them into keys and values, which is what is "
        "saved.",
    )
    sink: bool = option(
        False, "Keep the first position as it was initialised (the attention sink)."
    )
    dropout: float | None = option(
        None,
        "Share of its positions that each head misses in a step; chosen from the number of rows: "
        "0.2 with 50, 0.1 with 500, none from 5,000 on.",
        least=0,
        below=1,
        unset=_CHOSEN,
    )

    def __post_init__(self) -> None:
        _refuse(problems(self) or list(self._combination_problems()))

    def _combination_problems(self) -> Iterator[str]:
        from_file = self.init.endswith(".safetensors")
        if self.init_text is not None and self.init not in (AUTO, "text"):
            yield f"an init text was given with init {self.init!r}; it goes with init 'text' only"
        if self.reparam and self.prompt_tuning:
            yield "reparam and prompt_tuning were both given; choose one"
        if self.prompt_tuning and (self.sink or from_file):
            yield "prompt_tuning goes neither with sink nor with a prefix file as init"
        if self.sink and self.length == 1:
            yield "a prefix of length 1 with a frozen sink leaves nothing to train"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a prefix is trained. Raises TrainingError for values that make no sense."""

    steps: int | None = option(None, "Optimiser steps, instead of epochs.", least=1, unset=_CHOSEN)
    epochs: float | None = option(None, "Passes over the training rows.", above=0, unset=_CHOSEN)
    lr: float | None = option(
        None,
        "Peak learning rate of the keys (of the MLP with reparam); measured on this base.",
        above=0,
        unset=_CHOSEN,
    )
    value_lr_ratio: float = option(
        3.0, "Learning rate of the values over that of the keys.", above=0
    )
    batch_size: int | None = option(None, "Rows in one forward pass.", least=1, unset=_CHOSEN)
    accumulation: int = option(1, "Forward passes per optimiser step.", least=1)
    warmup: float = option(
        0.02,
        "Share of the steps in which the learning rate rises from zero.",
        least=0,
        below=1,
    )
    weight_decay: float = option(0.0, "Weight decay.", least=0)
    clip: float = option(0.0, "Largest gradient norm; 0 clips nothing.", least=0)
    label_smoothing: float = option(
        0.0,
        "Share of the probability that is asked for on all tokens alike.",
        least=0,
        below=1,
    )
    prompt_dropout: float | None = option(
        None,
        "Share of a prompt's tokens that are left out in a step, the template's excepted; chosen "
        "from the rows: for labels 0.3 with up to 100 and 0.17 with 200, else none.",
        least=0,
        below=1,
        unset=_CHOSEN,
    )
    seed: int = option(0, "One seed, one result.", least=0)
    precision: str = option(
        "auto",
        "Of the base's arithmetic; auto is bf16 where the machine multiplies it faster.",
        choices=("auto", "fp32", "bf16"),
    )
    device: str = option(
        "auto", "Where to train.", expected="auto, or a device of torch: cpu, cuda, cuda:1, …"
    )
    weights: str = option(
        "checkpoint",
        "Train on weights rounded as in a bundle of that precision, or as the checkpoint has them.",
        choices=("checkpoint", "int8", "int4"),
    )
    metric: str | None = option(
        None,
        "Picks the best prefix: loss, accuracy (needs labels), bleu or exact (real greedy "
        "generation), kl (to the teacher).",
        choices=METRICS,
        unset=_CHOSEN,
    )
    objective: str = option(
        "auto",
        "Cross-entropy of the target's tokens (target) or of the right label among all labels, "
        "which costs as many times more (labels); KL to the teacher (distill).",
        choices=OBJECTIVES,
    )
    validate_every: int | None = option(None, "Steps between validations.", least=1, unset=_CHOSEN)
    validation_rows: int = option(
        256, "Rows used at most in a validation while training (a seeded sample).", least=1
    )
    patience: int = option(
        0,
        "Validations without a better metric before training stops; 0 never stops early.",
        least=0,
    )
    max_tokens: int | None = option(
        None,
        "Longest prompt and target together, in tokens; longer prompts lose their beginning, and "
        "the report says so.",
        least=1,
        unset="what the base has room for",
    )
    log_every: int = option(10, "Steps between lines of metrics.jsonl.", least=1)
    recompute: bool = option(
        False,
        "Gradient checkpointing: layers are computed again in the backward pass; less memory, more "
        "time, the same numbers.",
    )
    tensorboard: bool = option(
        False,
        "Write the metrics for TensorBoard too, in RUN/tensorboard (pip install "
        "'edgeprefix[tensorboard]').",
    )

    def __post_init__(self) -> None:
        both = self.steps is not None and self.epochs is not None
        _refuse(problems(self) or ["both steps and epochs were given; give one of them"] * both)


def to_json(config: PrefixConfig | TrainConfig) -> dict[str, Any]:
    """Plain values for run.json and the prefix file's recipe."""
    return dataclasses.asdict(config)


def _refuse(wrong: list[str]) -> None:
    if wrong:
        raise TrainingError("; ".join(wrong))
