"""A base in bf16: its matrices are kept so, the rest is fp32, and it says nearly the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from edgeprefix.train import load_base
from tiny import VOCABULARY, randomise, save_checkpoint


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=["of fp32", "of bf16"])
def test_experts_are_held_in_bf16_as_well(stored: torch.dtype, tmp_path: Path) -> None:
    """They are most of such a base, and as fp32 they would double it."""
    config = AutoConfig.for_model(
        "qwen3_moe", vocab_size=VOCABULARY, hidden_size=64, moe_intermediate_size=96,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        num_experts=4, num_experts_per_tok=2, max_position_embeddings=256, eos_token_id=0,
    )  # fmt: skip
    model = randomise(AutoModelForCausalLM.from_config(config))
    folder = save_checkpoint(model.to(stored), tmp_path / "base")
    exact, half = (load_base(folder, precision=name) for name in ("fp32", "bf16"))
    kinds = {name: weight.dtype for name, weight in half.model.named_parameters()}
    assert {kinds[name] for name in kinds if "_proj" in name} == {torch.bfloat16}
    assert {kinds[name] for name in kinds if "norm" in name or "embed" in name} == {torch.float32}
    ids = torch.arange(2, 40)[None]
    expected, found = exact.logits([], ids), half.logits([], ids)
    assert found.dtype == torch.float32
    apart = (found - expected).abs().amax(-1) / expected.abs().max()
    assert float(apart.median()) < 0.02  # a token near a border may choose another expert
