"""The shared-prefix attention gives what the model's own attention gives over a cache that holds
the prefix.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    PreTrainedModel,
)
from transformers.models.llama.modeling_llama import LlamaModel

from edgeprefix.train import FrozenModel, load_base
from edgeprefix.train import attention as attention_module
from edgeprefix.train import model as model_module
from edgeprefix.train.packing import Packing
from edgeprefix.train.shared_prefix import SharedPrefixAttention, Visible
from tiny import VOCABULARY, randomise, save_checkpoint, tiny_gpt2, tiny_llama, tiny_mistral

P = 5


def tiny_gemma2() -> PreTrainedModel:
    """Soft-capped scores and logits, every other layer with a window shorter than the text."""
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
        sliding_window=8,
        eos_token_id=0,
        pad_token_id=1,
    )
    return randomise(Gemma2ForCausalLM(config))


def tiny_gpt_oss() -> PreTrainedModel:
    """Attention sinks and a window."""
    config = GptOssConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
        sliding_window=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        eos_token_id=0,
        pad_token_id=1,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )
    return randomise(GptOssForCausalLM(config))


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": tiny_llama,
    "gpt2": tiny_gpt2,
    "mistral": tiny_mistral,
    "gemma2": tiny_gemma2,
    "gpt_oss": tiny_gpt_oss,
}


@pytest.fixture(scope="module", params=MODELS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FrozenModel:
    folder = save_checkpoint(
        MODELS[request.param](), tmp_path_factory.mktemp("bases") / request.param
    )
    return load_base(folder, precision="fp32")


def random_prefix(base: FrozenModel) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(shape.kv_heads, P, shape.key_size, generator=generator).requires_grad_(),
            torch.randn(shape.kv_heads, P, shape.value_size, generator=generator).requires_grad_(),
        )
        for shape in base.layers
    ]


def random_ids(*shape: int, seed: int = 2) -> Tensor:
    return torch.randint(2, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def logits_and_gradients(
    base: FrozenModel, ids: Tensor, *, route: str, lengths: Sequence[int] | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Of all tokens that are no padding."""
    prefix = random_prefix(base)
    B, S = ids.shape
    rows = torch.cat(
        [torch.arange(length) + row * S for row, length in enumerate(lengths or [S] * B)]
    )
    logits = dataclasses.replace(base, route=route).logits(prefix, ids, rows, lengths)
    torch.nn.functional.cross_entropy(logits, ids.flatten()[rows]).backward()
    gradients = [tensor.grad for pair in prefix for tensor in pair]
    return logits.detach(), [gradient for gradient in gradients if gradient is not None]


def assert_equal(one: tuple[Tensor, list[Tensor]], other: tuple[Tensor, list[Tensor]]) -> None:
    torch.testing.assert_close(one[0], other[0], rtol=1e-4, atol=1e-4)
    assert len(one[1]) == len(other[1]) > 0
    for gradient, expected in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "lengths", [(20, 20, 20), (3, 20, 11), (1, 2, 4, 5, 8, 9, 10, 12, 13, 19, 20)], ids=str
)
def test_logits_and_gradients_equal_the_models_own_attention(
    base: FrozenModel, lengths: Sequence[int]
) -> None:
    ids = random_ids(len(lengths), 20)
    assert base.route == "packed"
    expected = logits_and_gradients(base, ids, route="cache", lengths=lengths)
    assert len(expected[1]) == 2 * len(base.layers)
    for route in ("packed", "shared"):
        assert_equal(logits_and_gradients(base, ids, route=route, lengths=lengths), expected)


@pytest.mark.parametrize("route", ["packed", "shared"])
def test_long_texts_take_the_kernel_that_stores_no_scores(
    llama: FrozenModel, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    ids, lengths = random_ids(3, 30), (7, 30, 29)
    stored = logits_and_gradients(llama, ids, route=route, lengths=lengths)
    monkeypatch.setattr(attention_module, "_MAX_STORED_SCORES", 1)
    assert_equal(logits_and_gradients(llama, ids, route=route, lengths=lengths), stored)


def test_packed_rows_carry_no_padding_up_to_a_limit(
    llama: FrozenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model reads as many tokens as there are, in one row; where they are many, it reads padded
    rows again.
    """
    seen: list[Tensor] = []
    handle = llama.model.get_input_embeddings().register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    try:
        with torch.no_grad():
            packed = llama.logits(
                random_prefix(llama), random_ids(3, 30), torch.tensor([0, 31]), lengths=(1, 30, 4)
            )
            monkeypatch.setattr(model_module, "_MOST_PACKED", 34)
            padded = llama.logits(
                random_prefix(llama), random_ids(3, 30), torch.tensor([0, 31]), lengths=(1, 30, 4)
            )
    finally:
        handle.remove()
    assert [ids.shape for ids in seen] == [(1, 35), (3, 30)]
    torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-4)


def test_a_model_that_takes_no_positions_is_not_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed, its second row would stand at the wrong place: found by comparison, and rows are
    padded instead.
    """
    folder = save_checkpoint(tiny_llama(), tmp_path / "llama")
    forward = LlamaModel.forward

    def without_positions(
        self: LlamaModel, *args: Any, position_ids: Tensor | None = None, **kwargs: Any
    ) -> Any:
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(LlamaModel, "forward", without_positions)
    base = load_base(folder, precision="fp32")
    assert base.route == "shared"
    ids, lengths = random_ids(2, 9), (4, 9)
    expected = logits_and_gradients(base, ids, route="cache", lengths=lengths)
    assert_equal(logits_and_gradients(base, ids, route=base.route, lengths=lengths), expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_route_that_weakens_the_prefix_is_found_out(
    llama_base: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    assert load_base(llama_base, precision=precision).route == "packed"
    attend = model_module.active_prefix

    def weakened(
        prefix: Sequence[tuple[Tensor, Tensor]], packing: Packing | None = None
    ) -> AbstractContextManager[None]:
        return attend([(0.9 * key, 0.9 * value) for key, value in prefix], packing)

    monkeypatch.setattr(model_module, "active_prefix", weakened)
    assert load_base(llama_base, precision=precision).route == "cache"


@pytest.mark.parametrize("name", MODELS)
def test_every_model_takes_the_fast_route_in_bf16_too(name: str, tmp_path: Path) -> None:
    folder = save_checkpoint(MODELS[name](), tmp_path)
    assert load_base(folder, precision="bf16").route == "packed"


def test_only_the_wanted_rows_are_projected_and_they_are_exact(base: FrozenModel) -> None:
    ids = random_ids(2, 9, seed=3)
    rows = torch.tensor([0, 7, 17])
    with torch.no_grad():
        prefix = random_prefix(base)
        torch.testing.assert_close(base.logits(prefix, ids, rows), base.logits(prefix, ids)[rows])


def test_what_stands_behind_a_row_does_not_change_it(base: FrozenModel) -> None:
    """Rows are padded on the right without a mask; a causal model must not notice."""
    ids = random_ids(1, 9, seed=4)
    padded = torch.cat([ids, torch.ones(1, 4, dtype=torch.long)], dim=1)
    with torch.no_grad():
        prefix = random_prefix(base)
        torch.testing.assert_close(
            base.logits(prefix, padded)[:9], base.logits(prefix, ids), rtol=1e-4, atol=1e-4
        )


def test_text_after_the_bases_own_keys_and_values_equals_the_whole_text(base: FrozenModel) -> None:
    """The prefix made of a text's keys and values stands for that text: positions and rotation are
    right.
    """
    ids = random_ids(14, seed=5)
    with torch.no_grad():
        prefix = base.key_values(ids[:6].tolist())
        torch.testing.assert_close(
            base.logits(prefix, ids[None, 6:]), base.logits([], ids[None])[6:], rtol=1e-3, atol=1e-3
        )


def test_a_model_outside_the_attention_interface_takes_the_cache_route(tmp_path: Path) -> None:
    from transformers import BloomConfig, BloomForCausalLM

    config = BloomConfig(
        vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, eos_token_id=0, pad_token_id=1
    )
    base = load_base(
        save_checkpoint(randomise(BloomForCausalLM(config)), tmp_path / "bloom"), precision="fp32"
    )
    assert base.route == "cache"
    assert base.logits(random_prefix(base), torch.full((2, 4), 7)).shape == (8, VOCABULARY)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("sink", [0.0, 4.0, 8.0])
def test_a_text_behind_a_sink_keeps_its_part(dtype: torch.dtype, sink: float) -> None:
    """A sink's values are nearly nothing, so that what is left of the output is the text's, however
    small its share (at 8 a 2,000th): as exact as the dtype's scores against the same numbers in
    fp64, gradients too.
    """
    H, G, S, D = 2, 2, 6, 16
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    q, key, value = draw(H * G, S, D), draw(H, S, D), draw(H, S, D)
    # All queries look alike at the first position, by a score of `sink` above the text's
    q[..., 0], key[..., 0] = 4.0, 0.0
    pk, pv = 0.1 * draw(H, P, D), draw(H, P, D) * 1e-3
    pk[:, :, 0] = sink
    packing = Packing([S], q.device)
    mask = torch.ones(S, P + S, dtype=torch.bool).tril(P)
    inputs = [tensor.requires_grad_() for tensor in (q, key, value, pk, pv)]
    out = SharedPrefixAttention.apply(*inputs, packing, Visible.of(mask, packing), D**-0.5)
    direction = draw(*out.shape)
    found = torch.autograd.grad(out, inputs, direction)
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    expected = exact_attention(*exact, mask)
    gradients = torch.autograd.grad(expected, exact, direction.double())
    bound = 4e-2 if dtype is torch.bfloat16 else 1e-5
    for one, other in zip((out, *found), (expected, *gradients), strict=True):
        error = (one.detach().double() - other.detach()).norm() / other.detach().norm()
        assert float(error) < bound


def exact_attention(
    q: Tensor, key: Tensor, value: Tensor, pk: Tensor, pv: Tensor, mask: Tensor
) -> Tensor:
    groups = q.shape[0] // key.shape[0]
    keys, values = (
        torch.cat(pair, dim=1).repeat_interleave(groups, dim=0) for pair in ((pk, key), (pv, value))
    )
    scores = (q @ keys.transpose(1, 2)) * q.shape[-1] ** -0.5
    return scores.masked_fill(~mask, float("-inf")).softmax(-1) @ values
