"""What training lowers and what validation measures, behind two methods, so that the loop need not
know which it is.

Objectives: cross-entropy of the target's tokens ("target"), of the right label among all labels
("labels"), or the divergence from a teacher ("distill"). Metrics: see edgeprefix.train.evaluate,
and "kl" to the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeprefix.train.attention import KeyValues
from edgeprefix.train.batches import collate
from edgeprefix.train.data import Example
from edgeprefix.train.distill import Teacher, divergence, teacher_divergence
from edgeprefix.train.evaluate import label_log_likelihoods, measure, target_loss
from edgeprefix.train.model import FrozenModel


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss and the metric of a run, by name, with what they need."""

    base: FrozenModel
    name: str
    metric_name: str
    labels: tuple[str, ...] = ()
    label_smoothing: float = 0.0
    teacher: Teacher | None = None

    def loss(self, prefix: KeyValues, examples: Sequence[Example]) -> Tensor:
        """Mean loss over the examples' target tokens (over the examples for "labels"); prompt
        tokens carry none.
        """
        if self.name == "labels":
            return self._label_loss(prefix, examples)
        batch = collate(examples).to(self.base.device)
        logits = self.base.logits(prefix, batch.ids, batch.rows, batch.lengths)
        if self.name == "distill" and self.teacher is not None:
            return divergence(logits, *self.teacher.targets(examples))
        return F.cross_entropy(logits, batch.targets, label_smoothing=self.label_smoothing)

    def weight(self, examples: Sequence[Example]) -> int:
        """What a mean loss over these examples counts in a larger mean: target tokens, or examples
        for "labels".
        """
        return (
            len(examples)
            if self.name == "labels"
            else sum(len(example.target) for example in examples)
        )

    def metric(self, prefix: KeyValues, examples: Sequence[Example]) -> float:
        """The validation metric."""
        if self.metric_name == "kl" and self.teacher is not None:
            return teacher_divergence(self.base, prefix, examples, self.teacher)
        return measure(self.base, prefix, examples, metric=self.metric_name, labels=self.labels)

    def measure(self, prefix: KeyValues, examples: Sequence[Example]) -> tuple[float, float]:
        """Validation loss (cross-entropy per target token) and metric."""
        loss = target_loss(self.base, prefix, examples)
        return loss, loss if self.metric_name == "loss" else self.metric(prefix, examples)

    def _label_loss(self, prefix: KeyValues, examples: Sequence[Example]) -> Tensor:
        """Cross-entropy of the right label under the softmax of all labels' log-likelihoods."""
        encoded = [self.base.tokenizer.encode_target(label) for label in self.labels]
        scores = label_log_likelihoods(
            self.base, prefix, [example.prompt for example in examples], encoded
        )
        right = torch.tensor(
            [self.labels.index(example.text) for example in examples], device=scores.device
        )
        return F.cross_entropy(scores, right, label_smoothing=self.label_smoothing)
