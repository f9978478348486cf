"""Gradient checkpointing: the same gradients, with less kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rows import record_rows
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from transformers import BloomConfig, BloomForCausalLM

from edgeprefix.runtime.errors import TrainingError
from edgeprefix.train import FrozenModel, PrefixConfig, TrainConfig, load_base, train_prefix
from tiny import VOCABULARY, randomise, save_checkpoint, tiny_gpt2, tiny_llama, tiny_mistral

MODELS = {"llama": tiny_llama, "gpt2": tiny_gpt2, "mistral": tiny_mistral}


def gradients(base: FrozenModel) -> tuple[list[Tensor], int]:
    """Gradients of a loss in the prefix, and the bytes that the forward pass kept."""
    generator = torch.Generator().manual_seed(3)
    prefix = [
        tuple(
            torch.randn(shape.kv_heads, 4, size, generator=generator).requires_grad_()
            for size in shape[1:]
        )
        for shape in base.layers
    ]
    ids = torch.randint(0, 300, (3, 40), generator=generator)
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with saved_tensors_hooks(count, lambda tensor: tensor):
        loss = (
            base.logits([(key, value) for key, value in prefix], ids, torch.arange(8))
            .square()
            .mean()
        )
    loss.backward()
    found = [tensor.grad for pair in prefix for tensor in pair]
    assert all(gradient is not None for gradient in found)
    return [gradient for gradient in found if gradient is not None], kept


@pytest.mark.parametrize("name", sorted(MODELS))
def test_gradients_are_equal_and_less_is_kept(name: str, tmp_path: Path) -> None:
    folder = save_checkpoint(MODELS[name](), tmp_path)
    plain = load_base(folder, precision="fp32")
    expected, kept = gradients(plain)
    actual, kept_recomputing = gradients(load_base(folder, precision="fp32", recompute=True))
    for left, right in zip(expected, actual, strict=True):
        assert torch.equal(left, right)
    assert kept_recomputing < 0.4 * kept


def test_the_layers_are_themselves_again_afterwards(llama_base: Path) -> None:
    base = load_base(llama_base, precision="fp32", recompute=True)
    gradients(base)
    assert all("forward" not in vars(module) for module in base.model.modules())


def test_a_whole_training_gives_the_same_loss(llama_base: Path, tmp_path: Path) -> None:
    losses = [
        train_prefix(
            llama_base,
            record_rows(24),
            task="t",
            out=tmp_path / str(recompute),
            prefix=PrefixConfig(length=4),
            train=TrainConfig(steps=4, batch_size=4, precision="fp32", recompute=recompute),
        ).validation_loss
        for recompute in (False, True)
    ]
    assert losses[0] == losses[1]


def test_a_base_outside_the_attention_interface_says_so(tmp_path: Path) -> None:
    config = BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=2)
    folder = save_checkpoint(randomise(BloomForCausalLM(config)), tmp_path)
    with pytest.raises(
        TrainingError,
        match="BloomForCausalLM cannot compute its layers again with a prefix in front",
    ):
        load_base(folder, precision="fp32", recompute=True)
