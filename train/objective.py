"""What training lowers: cross-entropy of the target's tokens, or of the right label among all labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeprefix.train.attention import KeyValues
from edgeprefix.train.base import Base
from edgeprefix.train.batches import Batch
from edgeprefix.train.data import Example
from edgeprefix.train.evaluate import label_log_likelihoods


def target_objective(base: Base, prefix: KeyValues, batch: Batch, *, label_smoothing: float) -> Tensor:
    """Mean cross-entropy over the batch's target tokens; prompt tokens carry no loss."""
    logits = base.logits(prefix, batch.ids, batch.rows)
    return F.cross_entropy(logits, batch.targets, label_smoothing=label_smoothing)


def label_objective(
    base: Base, prefix: KeyValues, examples: Sequence[Example], labels: Sequence[str], *, label_smoothing: float
) -> Tensor:
    """Cross-entropy of the right label under the softmax of all labels' log-likelihoods."""
    encoded = [base.tokenizer.encode_target(label) for label in labels]
    scores = label_log_likelihoods(base, prefix, [example.prompt for example in examples], encoded)
    right = torch.tensor([labels.index(example.text) for example in examples], device=scores.device)
    return F.cross_entropy(scores, right, label_smoothing=label_smoothing)
