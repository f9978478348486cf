"""Logits into log-probabilities, refused when they are no numbers."""

from __future__ import annotations

import math

from edgeprefix.runtime.errors import NumericalError
from edgeprefix.runtime.generation import sampling
from edgeprefix.runtime.work.slot import Logits


def finite_logprobs(logits: Logits) -> Logits:
    """Log-probabilities of logits [..., V]. Raises NumericalError for NaN and infinity."""
    result = sampling.log_softmax(logits)
    if result.size and not math.isfinite(float(result.max())):
        raise NumericalError("the base gave NaN or infinity as a logit; check prefix and precision")
    return result
