"""Notices a run that has become worse than the base alone, while there is time to begin anew.

A rate that a few trial steps bore may still be too much for the schedule's peak. Looked at twice:
early, by the loss of the latest training steps, and at the first validation, by what the run is
judged by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from edgeprefix.train.defaults import Plan
from edgeprefix.train.evaluate import HIGHER_IS_BETTER

RETREAT = 0.3
"""What is left of the learning rate after a setback."""
MOST_SETBACKS = 3

EARLY_STEP = 20
_LATEST = 10
_MARGIN = 0.3  # nats by which training rows in their dropouts may be worse than validation rows


def rate_left(setbacks: int) -> float:
    """Share of the learning rate that is left."""
    return float(RETREAT**setbacks)


def worse_early(plan: Plan, losses: Sequence[float], baseline: Mapping[str, float]) -> bool:
    """Whether the latest training losses (nats per target token) are far above the base alone's."""
    if plan.objective != "target" or len(losses) < _LATEST:
        return False
    return sum(losses[-_LATEST:]) / _LATEST > baseline["validation_loss"] + _MARGIN


def worse_validated(
    plan: Plan, measured: Mapping[str, float], baseline: Mapping[str, float]
) -> bool:
    """Whether a validation is worse than the base alone: by its loss where that is what training
    lowers, else by the metric.
    """
    name = "validation_loss" if plan.objective == "target" else plan.metric
    name = "validation_loss" if name == "loss" else name
    sign = -1 if name != "validation_loss" and HIGHER_IS_BETTER[name] else 1
    return not math.isfinite(measured[name]) or sign * measured[name] > sign * baseline[name]
