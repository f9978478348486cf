"""Does a graph leave out one of the base's layers? For graphs whose weights were rounded by others.

How another exporter rounds is not always known, so its errors cannot be told from rounding by their
size: leaving out one of thirty layers may cost less than rounding to 4 bits. They can be told by
their direction. torch without a layer errs in a direction of its own; a graph that lacks the layer
errs by all of it, plus its rounding, and a graph that has it errs by next to nothing of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from edgeprefix.base import Base
from edgeprefix.export.decoder_layers import decoder_layers
from edgeprefix.export.reference import Array, Reference, Row

# Of torch's error without the layer, in the graph's. Rounded to 4 bits, Gemma 3 270M has up to 0.17
# of a layer's with all of them, and 0.6 and more without the layer (of the first eight of 18).
_SHARE = 0.4
_LEAST_COSINE = 0.1  # what thousands of random numbers have by chance is a tenth of it
_COLUMNS = 8192  # of a vocabulary: enough for a direction, where all would be gigabytes

Errors = list[np.ndarray]
"""For each layer, what torch's logits lack without it: [S, v ≤ V], each row without its mean."""


def errors_without(base: Base, reference: Reference, row: Row, expected: Sequence[Array]) -> Errors:
    """Runs the row once without each of the base's layers."""
    found = []
    for layer in decoder_layers(base.model):
        with left_out(layer):
            found.append(_difference(reference.logits(row), expected))
    return found


def layers_left_out(
    errors: Errors, actual: Sequence[Array], expected: Sequence[Array]
) -> tuple[str, ...]:
    """What the graph's logits `actual` [S, V] lack, in words; empty when it has all layers."""
    got = _difference(actual, expected).ravel()
    found = []
    for index, error in enumerate(errors):
        lacking = error.ravel()
        overlap, size = float(got @ lacking), float(lacking @ lacking)
        length = np.sqrt(size * float(got @ got))
        if overlap > _SHARE * size and overlap > _LEAST_COSINE * length:
            found.append(f"it computes what torch computes without layer {index}")
    return tuple(found)


@contextlib.contextmanager
def left_out(layer: nn.Module) -> Iterator[None]:
    """Within the block the layer gives out what it gets."""

    def passed(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        states: Tensor = args[0] if args else kwargs["hidden_states"]
        return (states, *output[1:]) if isinstance(output, tuple) else states

    handle = layer.register_forward_hook(passed, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _difference(actual: Sequence[Array], expected: Sequence[Array]) -> np.ndarray:
    """[S, v] over evenly spread entries of the vocabulary, each row without its mean: softmax does
    not see what is added to a whole row.
    """
    step = -(-len(expected[0]) // _COLUMNS)
    pairs = zip(actual, expected, strict=True)
    found = np.stack([got[::step] - wanted[::step] for got, wanted in pairs])
    result: np.ndarray = found - found.mean(axis=1, keepdims=True)
    return result
