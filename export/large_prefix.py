"""A random prefix as large as trained ones, as far as the base bears it.

Behind such a prefix attention scores are tens of times those of text, which is where a soft cap or
a scale that is wrong shows. But on some bases they also blow up the last digit of a sum: torch then
differs from itself by more than a graph may differ from torch, and nothing could be compared. So
the prefix is made smaller until torch agrees with itself (Gemma 3 270M: a quarter).
"""

from __future__ import annotations

import numpy as np

from edgeprefix.export.reference import Array, Ids, Reference, Row, States

STRETCH = 9.3
"""Of the demo's trained prefixes over text, in the channel that reaches furthest."""

STEADY = 3e-5
"""Largest |Δ| over the largest |logit|: a tenth of what a graph may differ by (parity.py)."""

_LAST_DIGITS = 1e-6  # relative: sums in another order
_SEED = 3


def large_prefix(reference: Reference, tokens: Ids, length: int) -> States:
    """Keys and values [H, length, D] of each layer, up to STRETCH times the spread of text's."""
    stretch = STRETCH
    while stretch > 1:
        states = reference.random_states(tokens, length, seed=_SEED, stretch=stretch)
        if unsteadiness(reference, Row(tokens, states)) <= STEADY:
            return states
        stretch /= 2
    return reference.random_states(tokens, length, seed=_SEED)


def unsteadiness(reference: Reference, row: Row) -> float:
    """How far torch's logits move with the last digits of a row's prefix, over the largest."""
    assert row.states is not None
    random = np.random.default_rng(_SEED)

    def moved(array: Array) -> Array:
        noise = random.standard_normal(array.shape, np.float32)
        return array * (1 + np.float32(_LAST_DIGITS) * noise)

    other = Row(row.tokens, [(moved(key), moved(value)) for key, value in row.states])
    found, again = (np.stack(reference.logits(each)) for each in (row, other))
    return float(np.abs(found - again).max() / max(np.abs(found).max(), 1e-30))
