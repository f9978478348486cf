"""A base's plan from nothing but the base, or from the user's rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from edgeprefix.base import Base
from edgeprefix.base.quiet import quiet_transformers
from edgeprefix.export.rounding.layerwise import Texts
from edgeprefix.export.rounding.plan import FittedPlan, Goal, Progress, make_plan
from edgeprefix.export.rounding.texts import calibration_texts

_BATCH = 4  # texts that are read together
_WRITTEN = 0.3  # of the time is gone when the texts are there


def calibrated_plan(
    base: Base, goal: Goal, *, texts: Sequence[str] = (), progress: Progress
) -> FittedPlan:
    """Rounds a base's matrices by what they do to `texts`, and to what the base itself writes where
    those are too short.

    Takes minutes; the same base, goal and texts give the same plan. Raises ExportError when the
    goal cannot be reached.
    """
    with quiet_transformers():
        fitted, held_out = calibration_texts(
            base, texts, done=lambda done: progress(_WRITTEN * done)
        )
        return make_plan(
            base,
            Texts(torch.split(fitted, _BATCH), torch.split(held_out, _BATCH)),
            goal,
            progress=lambda done: progress(_WRITTEN + (1 - _WRITTEN) * done),
        )
