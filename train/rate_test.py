"""How large a first step a start bears: a line search along the optimiser's own first step.

The first step of NAdamW moves every parameter by the rate, against the sign of its gradient. So one
gradient tells its direction, and a few losses tell how far it goes down; the units of the
parameters are this base's (units.py), but how many of them there are, and how they work together,
only the loss knows: 256 numbers of a key and 18 layers bear a tenth of what 24 and 6 bear.

What is taken is a third of the best step: later steps go the same way for a while. Measured:
docs/lab/training-tried.md. (After range tests of rates: Smith 2017, "Cyclical learning rates",
section 3.3.)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from edgeprefix.train.optimiser import lr_of
from edgeprefix.train.parametrisation import Parametrisation, fold
from edgeprefix.train.probe import Probe

STEP_OVER_RATE = 3.0
"""The best first step over the rate that is taken for it."""

_SHARES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)  # of the largest rate


def falling_rates(largest: float, measure: Callable[[float], float]) -> dict[float, float]:
    """The loss that `measure` gives for each rate, from the largest down, until a smaller one is
    worse than the best.
    """
    losses: dict[float, float] = {}
    for share in _SHARES:
        rate = float(f"{largest * share:.3g}")
        best = min(losses.values(), default=math.inf)
        losses[rate] = measure(rate)
        if losses[rate] > best:
            break
    return losses


class FirstStep:
    """The first step from where a parametrisation stands; it is moved by measuring."""

    def __init__(
        self, parametrisation: Parametrisation, probe: Probe, *, value_lr_ratio: float
    ) -> None:
        self._parametrisation = parametrisation
        self._probe = probe
        self._ratio = value_lr_ratio
        parameters = parametrisation.parameters()
        self._from = {name: tensor.detach().clone() for name, tensor in parameters.items()}
        self._direction = probe.gradient_signs(parametrisation)

    def loss(self, rate: float) -> float:
        """The measured rows' loss after a first step as long as the best one of a run at this rate
        would be; infinite when it is no number.
        """
        with torch.no_grad():
            for name, tensor in self._parametrisation.parameters().items():
                far = STEP_OVER_RATE * lr_of(name, rate, self._ratio)
                tensor.copy_(self._from[name] - far * self._direction[name])
        loss = self._probe.loss(fold(self._parametrisation))
        return loss if math.isfinite(loss) else math.inf
