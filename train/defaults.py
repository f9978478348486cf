"""Every setting that the user left open, chosen from the data and the base by rules that were
measured (docs/lab/training-tried.md); start and rate, which are the base's own, are measured anew
(choice.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgeprefix.runtime.errors import TrainingError
from edgeprefix.train.config import PrefixConfig, TrainConfig
from edgeprefix.train.data import TrainingData
from edgeprefix.train.model import FrozenModel

_LENGTH = 100
_LEAST_TEXT = 16  # positions that must stay for the text
_BATCH_SIZE = 16
# Labels are a faint signal that takes long to learn (measured).
_STEPS_LEAST, _STEPS_LEAST_LABELS, _STEPS_MOST, _EPOCHS = 300, 600, 3000, 5
_VALIDATIONS = 8
# A prefix learns few rows by heart. Below this number of rows, without labels, it takes smaller
# steps, by the root of the rows' share (measured).
_FEW_ROWS = 500
_LEAST_LR_SHARE = 0.2
# Hiding positions keeps it from doing so: 0.2 of them at 50 rows and less, 0.1 at 500, none from
# 5,000 on (measured).
_MOST_DROPOUT, _DROPOUT_A_DECADE, _ROWS_WITHOUT_DROPOUT = 0.2, 0.1, 5000
# Shortened prompts do the same for few rows with labels: 0.3 of their tokens are left out up to 100
# rows, none from 500 on.
_MOST_PROMPT_DROPOUT, _FEW_LABEL_ROWS = 0.3, (100, 500)
# The largest rate of the keys, in units of the base's spread; a base that bears less is given less
# (choice.py). Classification needs smaller steps: what tells rows apart is a faint signal in the
# gradients, and Adam's steps in the noise around it drown it (measured: 0.1 stays at chance where
# 0.05 learns).
_LR, _LR_LABELS, _LR_MLP, _LR_PROMPT = 0.1, 0.05, 5e-3, 0.05


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The settings of a run; stored in run.json and in the prefix file, with nothing left open."""

    length: int
    init: str
    """AUTO until it is chosen by measurement (choice.py)."""
    steps: int
    batch_size: int
    lr: float
    """The largest rate that may be taken, until it is chosen by measurement."""
    dropout: float
    prompt_dropout: float
    metric: str
    objective: str
    validate_every: int
    max_tokens: int


def choose_length(prefix: PrefixConfig, base: FrozenModel, file_length: int | None) -> int:
    """P: as asked, else as in the prefix file, else the measured default within a quarter of the
    base's positions.
    """
    if prefix.length is not None:
        length = prefix.length
    elif file_length is not None:
        length = file_length
    else:
        length = min(_LENGTH, base.max_positions // 4)
    if length + _LEAST_TEXT > base.max_positions:
        raise TrainingError(
            f"prefix length {length} leaves {base.max_positions - length} of the base's "
            f"{base.max_positions} positions "
            "for the text; choose a smaller --length"
        )
    return length


def choose_max_tokens(train: TrainConfig, base: FrozenModel, length: int) -> int:
    """Longest prompt + target: what fits behind the prefix, or less when asked for."""
    return min(base.max_positions - length, train.max_tokens or 2**31)


def plan(
    prefix: PrefixConfig,
    train: TrainConfig,
    data: TrainingData,
    *,
    length: int,
    max_tokens: int,
    labels: Sequence[str],
    distilled: bool,
) -> Plan:
    """Chooses the rest. Raises TrainingError when settings and data do not fit together."""
    if train.metric == "accuracy" and not labels:
        raise TrainingError("the metric accuracy needs labels; give --labels a,b,c")
    if train.objective == "labels" and not labels:
        raise TrainingError("the objective labels needs labels; give --labels a,b,c")
    if not distilled and (train.objective == "distill" or train.metric == "kl"):
        raise TrainingError(
            "the objective distill and the metric kl need a teacher; give --teacher-text or "
            "--teacher-file"
        )
    batch_size = min(train.batch_size or _BATCH_SIZE, len(data.train))
    steps = train.steps
    if steps is None:
        whole = _steps_of(train.epochs or _EPOCHS, len(data.train), batch_size, train.accumulation)
        least = _STEPS_LEAST_LABELS if labels else _STEPS_LEAST
        steps = whole if train.epochs is not None else min(_STEPS_MOST, max(least, whole))
    share = 1.0 if labels or distilled else min(1.0, len(data.train) / _FEW_ROWS)
    return Plan(
        length=length,
        init=prefix.init,
        steps=steps,
        batch_size=batch_size,
        lr=train.lr or _largest_lr(prefix, labels, share),
        dropout=_choose_dropout(prefix, rows=len(data.train), distilled=distilled),
        prompt_dropout=_choose_prompt_dropout(
            train, rows=len(data.train), labels=labels, distilled=distilled
        ),
        metric=train.metric or ("kl" if distilled else "accuracy" if labels else "loss"),
        objective=train.objective
        if train.objective != "auto"
        else "distill"
        if distilled
        else "target",
        validate_every=train.validate_every or max(1, -(-steps // _VALIDATIONS)),
        max_tokens=max_tokens,
    )


def _steps_of(epochs: float, rows: int, batch_size: int, accumulation: int) -> int:
    """The fewest steps in which every row is met so often; the last one goes on into the next pass
    where they do not come out even.
    """
    batches = epochs * -(-rows // batch_size)
    return max(1, math.ceil(round(batches / accumulation, 6)))


def _choose_dropout(prefix: PrefixConfig, *, rows: int, distilled: bool) -> float:
    if prefix.dropout is not None:
        return prefix.dropout
    chosen = _DROPOUT_A_DECADE * math.log10(_ROWS_WITHOUT_DROPOUT / rows)
    return 0.0 if distilled else round(min(max(chosen, 0.0), _MOST_DROPOUT), 3)


def _choose_prompt_dropout(
    train: TrainConfig, *, rows: int, labels: Sequence[str], distilled: bool
) -> float:
    if train.prompt_dropout is not None:
        if train.prompt_dropout and distilled:
            raise TrainingError(
                "the teacher has answered whole prompts; leave prompt_dropout out with a teacher"
            )
        return train.prompt_dropout
    if distilled or not labels:
        return 0.0
    least, most = _FEW_LABEL_ROWS
    share = math.log(most / rows) / math.log(most / least)
    return round(_MOST_PROMPT_DROPOUT * min(max(share, 0.0), 1.0), 3)


def _largest_lr(prefix: PrefixConfig, labels: Sequence[str], share: float) -> float:
    if prefix.reparam:
        return _LR_MLP
    if prefix.prompt_tuning:
        return _LR_PROMPT
    return _LR_LABELS if labels else _LR * max(_LEAST_LR_SHARE, share**0.5)
