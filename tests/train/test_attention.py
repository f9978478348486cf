"""The shared-prefix attention gives what the model's own attention gives over a cache that holds the prefix."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Gemma2Config, Gemma2ForCausalLM, GptOssConfig, GptOssForCausalLM, PreTrainedModel

from edgeprefix.train import Base, load_base
from edgeprefix.train import attention as attention_module
from tiny import VOCABULARY, randomise, save_checkpoint, tiny_gpt2, tiny_llama, tiny_mistral

P = 5


def tiny_gemma2() -> PreTrainedModel:
    """Soft-capped scores and logits, every other layer with a window shorter than the text."""
    config = Gemma2Config(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=256, sliding_window=8, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    return randomise(Gemma2ForCausalLM(config))


def tiny_gpt_oss() -> PreTrainedModel:
    """Attention sinks and a window."""
    config = GptOssConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=256, sliding_window=8, num_local_experts=4,
        num_experts_per_tok=2, eos_token_id=0, pad_token_id=1, rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )  # fmt: skip
    return randomise(GptOssForCausalLM(config))


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": tiny_llama,
    "gpt2": tiny_gpt2,
    "mistral": tiny_mistral,
    "gemma2": tiny_gemma2,
    "gpt_oss": tiny_gpt_oss,
}


@pytest.fixture(scope="module", params=MODELS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = save_checkpoint(MODELS[request.param](), tmp_path_factory.mktemp("bases") / request.param)
    return load_base(folder, precision="fp32")


def random_prefix(base: Base) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(shape.kv_heads, P, shape.key_size, generator=generator).requires_grad_(),
            torch.randn(shape.kv_heads, P, shape.value_size, generator=generator).requires_grad_(),
        )
        for shape in base.layers
    ]


def logits_and_gradients(base: Base, ids: Tensor) -> tuple[Tensor, list[Tensor]]:
    prefix = random_prefix(base)
    logits = base.logits(prefix, ids)
    torch.nn.functional.cross_entropy(logits, ids.flatten()).backward()
    gradients = [tensor.grad for pair in prefix for tensor in pair]
    return logits.detach(), [gradient for gradient in gradients if gradient is not None]


def test_logits_and_gradients_equal_the_models_own_attention(base: Base) -> None:
    ids = torch.randint(2, VOCABULARY, (3, 20), generator=torch.Generator().manual_seed(2))
    assert base.route == "shared"
    logits, gradients = logits_and_gradients(base, ids)
    expected, expected_gradients = logits_and_gradients(dataclasses.replace(base, route="cache"), ids)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert len(gradients) == len(expected_gradients) == 2 * len(base.layers)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-6)


def test_long_texts_take_the_kernel_that_stores_no_scores(llama: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.randint(2, VOCABULARY, (2, 30), generator=torch.Generator().manual_seed(2))
    logits, gradients = logits_and_gradients(llama, ids)
    monkeypatch.setattr(attention_module, "_MAX_STORED_SCORES", 1)
    long_logits, long_gradients = logits_and_gradients(llama, ids)
    torch.testing.assert_close(long_logits, logits, rtol=1e-4, atol=1e-4)
    for gradient, other in zip(long_gradients, gradients, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-6)


def test_only_the_wanted_rows_are_projected_and_they_are_exact(base: Base) -> None:
    ids = torch.randint(2, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(3))
    rows = torch.tensor([0, 7, 17])
    with torch.no_grad():
        prefix = random_prefix(base)
        torch.testing.assert_close(base.logits(prefix, ids, rows), base.logits(prefix, ids)[rows])


def test_what_stands_behind_a_row_does_not_change_it(base: Base) -> None:
    """Rows are padded on the right without a mask; a causal model must not notice."""
    ids = torch.randint(2, VOCABULARY, (1, 9), generator=torch.Generator().manual_seed(4))
    padded = torch.cat([ids, torch.ones(1, 4, dtype=torch.long)], dim=1)
    with torch.no_grad():
        prefix = random_prefix(base)
        torch.testing.assert_close(base.logits(prefix, padded)[:9], base.logits(prefix, ids), rtol=1e-4, atol=1e-4)


def test_text_after_the_bases_own_keys_and_values_equals_the_whole_text(base: Base) -> None:
    """The prefix made of a text's keys and values stands for that text: positions and rotation are right."""
    ids = torch.randint(2, VOCABULARY, (14,), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        prefix = base.key_values(ids[:6].tolist())
        torch.testing.assert_close(
            base.logits(prefix, ids[None, 6:]), base.logits([], ids[None])[6:], rtol=1e-3, atol=1e-3
        )


def test_a_model_outside_the_attention_interface_takes_the_cache_route(tmp_path: Path) -> None:
    from transformers import BloomConfig, BloomForCausalLM

    config = BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, eos_token_id=0, pad_token_id=1)
    base = load_base(save_checkpoint(randomise(BloomForCausalLM(config)), tmp_path / "bloom"), precision="fp32")
    assert base.route == "cache"
    assert base.logits(random_prefix(base), torch.full((2, 4), 7)).shape == (8, VOCABULARY)
