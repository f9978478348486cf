"""The training rows that start and rate are chosen on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgeprefix.train.attention import KeyValues
from edgeprefix.train.batches import in_length_order
from edgeprefix.train.data import Example
from edgeprefix.train.objective import Objective
from edgeprefix.train.parametrisation import Parametrisation
from edgeprefix.train.processes import Processes
from edgeprefix.train.setting import Setting

_TOKENS, _FEWEST, _MOST = 1024, 8, 64  # tokens of about so many rows
_TOGETHER = 8  # rows in one pass, so that a choice takes no more memory than a step


@dataclass(frozen=True)
class Probe:
    """Rows that a prefix is asked about before any training, and what it is asked."""

    objective: Objective
    rows: Sequence[Example]
    processes: Processes

    @classmethod
    def of(cls, setting: Setting) -> Probe:
        """A seeded choice among the rows that the run will see."""
        rows = setting.visited
        random.Random(f"{setting.train.seed}/probe").shuffle(rows)
        tokens, count = 0, 0
        while count < min(len(rows), _MOST) and (count < _FEWEST or tokens < _TOKENS):
            tokens += rows[count].length
            count += 1
        return cls(setting.objective, rows[:count], setting.processes)

    @torch.no_grad()
    def loss(self, prefix: KeyValues) -> float:
        """The objective's mean loss; an empty `prefix` is the base alone. The same number in every
        process.
        """
        total = torch.zeros((), dtype=torch.float64)
        for group in in_length_order(self.rows, _TOGETHER):
            total += self.objective.weight(group) * float(self.objective.loss(prefix, group))
        return self._mean(total)

    def gradient_signs(self, parametrisation: Parametrisation) -> dict[str, Tensor]:
        """Signs of the loss's gradient in each parameter."""
        parameters = parametrisation.parameters()
        for tensor in parameters.values():
            tensor.grad = None
        for group in in_length_order(self.rows, _TOGETHER):
            loss = self.objective.loss(parametrisation.prefix(), group)
            (loss * self.objective.weight(group)).backward()  # type: ignore[no-untyped-call]
        return {
            name: torch.zeros_like(tensor) if tensor.grad is None else tensor.grad.sign()
            for name, tensor in parameters.items()
        }

    def _mean(self, total: Tensor) -> float:
        self.processes.sum_in_place([total])
        return float(total) / self.processes.count / self.objective.weight(self.rows)
