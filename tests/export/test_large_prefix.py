"""The large prefix that bundles are compared behind: as large as torch agrees with itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from edgeprefix.base import load_base
from edgeprefix.export.bundle import export_decoder
from edgeprefix.export.large_prefix import STEADY, STRETCH, large_prefix, unsteadiness
from edgeprefix.export.reference import Reference, Row, States, some_tokens
from edgeprefix.export.verify import verify
from tiny import save_checkpoint, tiny_llama

EMBEDDED = Path(__file__).parents[2] / "demo" / "base"


def reach(states: States) -> float:
    return max(float(np.abs(key).max()) for key, _ in states)


def test_a_steady_base_gets_the_whole_size() -> None:
    base = load_base(EMBEDDED)
    reference, tokens = Reference(base), some_tokens(base, 40)
    whole = reference.random_states(tokens, 12, seed=3, stretch=STRETCH)
    assert reach(large_prefix(reference, tokens, 12)) == reach(whole)


def test_a_base_that_blows_up_last_digits_gets_a_smaller_one_and_passes(tmp_path: Path) -> None:
    """Large queries, layer upon layer: each makes more of the last digits of the one before."""
    model = tiny_llama(num_hidden_layers=6)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight *= 4
    base = load_base(save_checkpoint(model, tmp_path / "base"))
    reference, tokens = Reference(base), some_tokens(base, 40)
    whole = reference.random_states(tokens, 12, seed=3, stretch=STRETCH)
    assert unsteadiness(reference, Row(tokens, whole)) > STEADY
    assert reach(large_prefix(reference, tokens, 12)) < reach(whole)
    export_decoder(tmp_path / "base", tmp_path / "bundle")
    assert verify(tmp_path / "bundle", base).passed
