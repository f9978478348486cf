"""A run's inputs, all resolved: base, data, plan and configurations, with what follows from
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeprefix.train.batches import Batches, sample
from edgeprefix.train.config import PrefixConfig, TrainConfig
from edgeprefix.train.data import Example, TrainingData
from edgeprefix.train.defaults import Plan
from edgeprefix.train.distill import Teacher
from edgeprefix.train.model import FrozenModel
from edgeprefix.train.objective import Objective
from edgeprefix.train.processes import Processes


@dataclass(frozen=True)
class Setting:
    """The inputs of a run, all resolved."""

    base: FrozenModel
    data: TrainingData
    plan: Plan
    prefix: PrefixConfig
    train: TrainConfig
    task: str
    prompt: str
    labels: tuple[str, ...]
    stop: tuple[str, ...]
    licence: str
    teacher: Teacher | None
    processes: Processes
    choice: Mapping[str, Any] | None = None
    """What was measured to choose start and rate, where they were left open (choice.py)."""
    search: Mapping[str, Any] | None = None
    """What a search tried and chose, for run.json."""

    @property
    def held_out(self) -> list[Example]:
        """The validation rows that are measured: a seeded sample."""
        return sample(self.data.validation, self.train.validation_rows, self.train.seed)

    @property
    def visited(self) -> list[Example]:
        """The training rows that the run will see."""
        batches = Batches(self.data.train, batch_size=self.plan.batch_size, seed=self.train.seed)
        count = min(self.plan.steps * self.train.accumulation, batches.per_epoch)
        if count == batches.per_epoch:
            return list(self.data.train)
        return [self.data.train[index] for step in range(count) for index in batches.indices(step)]

    @property
    def objective(self) -> Objective:
        """Loss and metric."""
        return Objective(
            base=self.base,
            name=self.plan.objective,
            metric_name=self.plan.metric,
            labels=self.labels,
            label_smoothing=self.train.label_smoothing,
            teacher=self.teacher,
        )
