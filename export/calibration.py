"""How far a base's keys and values reach, channel by channel: the steps of an int8 cache.

A channel's largest number over some text, and a margin for what other texts and trained prefixes
hold, is 127 steps. What lies beyond is cut off.
"""

from __future__ import annotations

import numpy as np

from edgeprefix.base import Base
from edgeprefix.base.quiet import quiet_transformers
from edgeprefix.export.reference import Reference, some_tokens
from edgeprefix.runtime.contracts.cache_scales import LARGEST_STEP, LayerScales

_TOKENS = 256
_MARGIN = 1.25
_SMALLEST = 1e-6  # of a channel that is always zero


def measure_scales(base: Base) -> tuple[LayerScales, ...]:
    """Scales [H, 1, D] of every layer, from the base's own keys and values over a text in torch."""
    with quiet_transformers():
        states = Reference(base).own_states(some_tokens(base, min(_TOKENS, base.max_positions)))
    return tuple(
        LayerScales(
            *(
                np.maximum(
                    np.abs(array).max(axis=1, keepdims=True) * _MARGIN / LARGEST_STEP, _SMALLEST
                )
                for array in pair
            )
        )
        for pair in states
    )
