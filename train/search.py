"""`--search`: a few settings tried on short runs in a stated budget of seconds, one question after
another.

First the learning rate, then its ratio between values and keys, then the start; every question
keeps the best answer so far. A trial is a run of its own with a fraction of the steps and the whole
schedule, judged by its validation loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgeprefix.runtime.errors import TrainingDiverged

_SHARE_OF_STEPS = 0.2
_FEWEST_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The settings that a search may change."""

    lr: float
    value_lr_ratio: float
    init: str


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one candidate came to."""

    candidate: Candidate
    validation_loss: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Search:
    """All trials, and the candidate that won."""

    chosen: Candidate
    trials: tuple[Trial, ...]

    def to_json(self) -> dict[str, Any]:
        """For run.json."""
        return {"chosen": asdict(self.chosen), "trials": [asdict(trial) for trial in self.trials]}


def chosen_in(facts: Mapping[str, Any]) -> Candidate | None:
    """The winner of a search that a run.json tells of, None when it tells of none."""
    search = facts.get("search")
    return Candidate(**search["chosen"]) if search else None


def trial_steps(steps: int) -> int:
    """Steps of a trial for a run of `steps`."""
    return min(steps, max(_FEWEST_STEPS, round(steps * _SHARE_OF_STEPS)))


def search(
    start: Candidate,
    attempt: Callable[[Candidate], float],
    *,
    budget_s: float,
    inits: tuple[str, ...],
    clock: Callable[[], float] = time.perf_counter,
) -> Search:
    """Tries candidates until the budget would be overrun; `attempt` trains one and gives its
    validation loss.

    A candidate whose training diverges loses. The first trial always runs. Raises TrainingDiverged
    when every trial diverged, and what else `attempt` raises.
    """
    began, trials = clock(), list[Trial]()

    def run(candidate: Candidate) -> None:
        longest = max((trial.seconds for trial in trials), default=0.0)
        known = any(trial.candidate == candidate for trial in trials)
        if known or (trials and clock() - began + longest > budget_s):
            return
        started = clock()
        try:
            loss = attempt(candidate)
        except TrainingDiverged:
            loss = float("inf")
        trials.append(Trial(candidate=candidate, validation_loss=loss, seconds=clock() - started))

    def best() -> Candidate:
        return min(trials, key=lambda trial: trial.validation_loss).candidate

    run(start)
    for factor in (3.0, 1 / 3, 10.0):
        run(Candidate(lr=start.lr * factor, value_lr_ratio=start.value_lr_ratio, init=start.init))
    kept = best()
    for ratio in (1.0, 10.0):
        run(Candidate(lr=kept.lr, value_lr_ratio=ratio, init=kept.init))
    kept = best()
    for init in inits:
        run(Candidate(lr=kept.lr, value_lr_ratio=kept.value_lr_ratio, init=init))
    if min(trial.validation_loss for trial in trials) == float("inf"):
        raise TrainingDiverged("every setting that was tried diverged; give a smaller --lr")
    return Search(chosen=best(), trials=tuple(trials))
