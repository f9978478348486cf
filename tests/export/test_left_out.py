"""A layer that is left out is told from rounding by the direction of the error, on trained bases.

Rounding is torch's own here, so that every layer of every base is tried in seconds.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeprefix.base import Base, load_base
from edgeprefix.base.quiet import quiet_transformers
from edgeprefix.export.decoder_layers import decoder_layers
from edgeprefix.export.left_out import errors_without, layers_left_out, left_out
from edgeprefix.export.reference import Reference, Row, some_tokens

EMBEDDED = Path(__file__).parents[2] / "demo" / "base"
REAL = Path(os.environ.get("EDGEPREFIX_REAL_BASE", "/nowhere")) / "gemma-3-270m"


def check_every_layer(base: Base, precision: str) -> None:
    reference = Reference(base)
    tokens = some_tokens(base, 160)
    row = Row(tokens[:40], reference.random_states(tokens, 12, seed=1))
    expected = reference.logits(row)
    errors = errors_without(base, reference, row, expected)
    assert errors[0].shape[1] <= 8192  # however many words the vocabulary has
    with reference.rounded_weights(precision):
        assert layers_left_out(errors, reference.logits(row), expected) == ()
        missed = []
        for index, layer in enumerate(decoder_layers(base.model)):
            with left_out(layer):
                found = layers_left_out(errors, reference.logits(row), expected)
            if f"it computes what torch computes without layer {index}" not in found:
                missed.append(index)
    assert missed == []


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_every_layer_of_a_trained_base_is_missed(precision: str) -> None:
    check_every_layer(load_base(EMBEDDED), precision)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="EDGEPREFIX_REAL_BASE names no folder with it")
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_every_layer_of_a_real_base_is_missed(precision: str) -> None:
    with quiet_transformers():
        check_every_layer(load_base(REAL), precision)
