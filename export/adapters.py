"""Families whose attention does not go through transformers' attention interface, each with the
least that gets it out.

An adapter replaces ONE method of the family's attention class while the model is looked at: the one
that computes the attention, or, where that is not a method of its own, the layer's forward around
it. Projections, rotation and everything else stay the model's own. B batch, S new tokens, D head
size.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from edgeprefix.base.max_positions import ALIBI_POSITIONS
from edgeprefix.export.calls import AttentionCall

Attend = Callable[..., Tensor]
"""(layer is known) attend(query, key, value, scale=…, window=…, bias=…) → [B, S, heads, D]."""

Replacement = Callable[[Any, Attend], Callable[..., Any]]

Rewritten = tuple[tuple[str | None, str, Callable[..., Any]], ...]


def gpt_neo(model: Any, attend: Attend) -> Callable[..., Any]:
    """`_attn` of GPT-Neo: no scaling; every other layer sees a window."""

    def _attn(
        self: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None
    ) -> tuple[Tensor, None]:
        local = self.config.attention_layers[self.layer_id] == "local"
        out = attend(
            query, key, value, scale=1.0, window=self.config.window_size if local else None
        )
        return out.transpose(1, 2), None

    return _attn


def gptj(model: Any, attend: Attend) -> Callable[..., Any]:
    """`_attn` of GPT-J and CodeGen."""

    def _attn(
        self: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None
    ) -> tuple[Tensor, None]:
        return attend(query, key, value, scale=1.0 / float(self.scale_attn)).transpose(1, 2), None

    return _attn


def xglm(model: Any, attend: Attend) -> Callable[..., Any]:
    """`forward` of XGLM's attention."""

    def forward(
        self: Any, hidden_states: Tensor, past_key_values: Any = None, **options: Any
    ) -> tuple[Tensor, None]:
        query, key, value = (
            _heads(project(hidden_states), self.num_heads)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        key, value = past_key_values.update(key, value, self.layer_idx)
        return self.out_proj(attend(query, key, value, scale=self.scaling).flatten(2)), None

    return forward


def bloom(model: Any, attend: Attend) -> Callable[..., Any]:
    """`forward` of BLOOM's attention, with its linear biases (ALiBi) as a table."""
    table = _alibi(model, "build_alibi_tensor")

    def forward(
        self: Any, hidden_states: Tensor, residual: Tensor, layer_past: Any = None, **options: Any
    ) -> tuple[Tensor, None]:
        query, key, value = self._reshape(self.query_key_value(hidden_states))
        key, value = layer_past.update(key, value, self.layer_idx)
        out = attend(query, key, value, scale=self.inv_norm_factor, bias=self.beta * table)
        return self.dense(out.flatten(2)) + residual, None

    return forward


def mpt(model: Any, attend: Attend) -> Callable[..., Any]:
    """`forward` of MPT's attention, with its linear biases as a table."""
    positions = model.config.max_seq_len
    table = model.transformer.build_mpt_alibi_tensor(model.config.n_heads, positions)[
        :, 0
    ]  # [heads, positions]

    def forward(
        self: Any, hidden_states: Tensor, past_key_values: Any = None, **options: Any
    ) -> tuple[Tensor, None]:
        mixed = self.Wqkv(hidden_states)
        if self.clip_qkv:
            mixed = mixed.clamp(min=-self.clip_qkv, max=self.clip_qkv)
        query, key, value = (_heads(part, self.n_heads) for part in mixed.chunk(3, dim=2))
        key, value = past_key_values.update(key, value, self.layer_idx)
        return self.out_proj(
            attend(query, key, value, scale=self.softmax_scale, bias=table).flatten(2)
        ), None

    return forward


def falcon(model: Any, attend: Attend) -> Callable[..., Any]:
    """`forward` of Falcon's attention: rotary, or linear biases when its configuration says so."""
    code = sys.modules[type(model).__module__]
    table = _alibi(model, "build_alibi_tensor") if model.config.alibi else None

    def forward(
        self: Any,
        hidden_states: Tensor,
        alibi: Any = None,
        attention_mask: Any = None,
        layer_past: Any = None,
        position_embeddings: Any = None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        query, key, value = (
            states.transpose(1, 2)
            for states in self._split_heads(self.query_key_value(hidden_states))
        )
        if table is None:
            query, key = code.apply_rotary_pos_emb(query, key, *position_embeddings)
        key, value = layer_past.update(key, value, self.layer_idx)
        bias = None if table is None else table * self.inv_norm_factor
        return self.dense(
            attend(query, key, value, scale=self.head_dim**-0.5, bias=bias).flatten(2)
        ), None

    return forward


def gpt_neox_japanese(model: Any, attend: Attend) -> Callable[..., Any]:
    """`_attn` of GPT-NeoX Japanese."""

    def _attn(
        self: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None
    ) -> tuple[Tensor, None]:
        return attend(query, key, value, scale=1.0 / self.norm_factor).transpose(1, 2), None

    return _attn


ADAPTERS: dict[str, tuple[str, str, Replacement]] = {
    "gpt_neo": ("GPTNeoSelfAttention", "_attn", gpt_neo),
    "gptj": ("GPTJAttention", "_attn", gptj),
    "codegen": ("CodeGenAttention", "_attn", gptj),
    "xglm": ("XGLMAttention", "forward", xglm),
    "bloom": ("BloomAttention", "forward", bloom),
    "mpt": ("MptAttention", "forward", mpt),
    "falcon": ("FalconAttention", "forward", falcon),
    "gpt_neox_japanese": ("GPTNeoXJapaneseAttention", "_attn", gpt_neox_japanese),
}
"""Model type → class of its attention layer, method, replacement."""


def has_adapter(model: PreTrainedModel) -> bool:
    """Whether the model's family is one of those with an adapter."""
    return model.config.model_type in ADAPTERS


@contextlib.contextmanager
def adapted(
    model: PreTrainedModel, attend: Callable[[AttentionCall], Tensor], take_layer: Callable[[], int]
) -> Iterator[None]:
    """Lets `attend` answer the attention calls of a model with an adapter; `take_layer` names the
    layer that asks.
    """
    name, method, replacement = ADAPTERS[model.config.model_type]
    owner = getattr(sys.modules[type(model).__module__], name)

    def answer(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        return attend(
            AttentionCall(layer=take_layer(), query=query, key=key, value=value, **options)
        )

    original = vars(owner)[method]
    setattr(owner, method, replacement(model, answer))
    try:
        yield
    finally:
        setattr(owner, method, original)


@contextlib.contextmanager
def traceable(model: PreTrainedModel) -> Iterator[None]:
    """Within the block, operations that ONNX does not have are written in others, to the same
    numbers.
    """
    code = sys.modules[type(model).__module__]
    places = [
        (getattr(code, owner) if owner else code, name, replacement)
        for owner, name, replacement in REWRITTEN.get(model.config.model_type, ())
    ]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for owner, name, replacement in places:
        setattr(owner, name, replacement)
    try:
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def _real_angles(self: Any, x: Tensor, position_ids: Tensor) -> Tensor:
    """Cosines and sines of the angles, [B, S, R/2, 2]."""
    angles = position_ids[..., None].float() * self.inv_freq
    found: Tensor = torch.stack((angles.cos(), angles.sin()), -1) * self.attention_scaling
    return found


def _rotate_pairs(query: Tensor, key: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    """Neighbouring numbers of each head turn together; states [B, S, heads, D]."""
    cos, sin = angles[:, :, None, :, 0], angles[:, :, None, :, 1]

    def turned(states: Tensor) -> Tensor:
        first, second = states[..., ::2], states[..., 1::2]
        return torch.stack((first * cos - second * sin, first * sin + second * cos), -1).flatten(-2)

    return turned(query), turned(key)


def _gaussian_topk(self: Any, inputs: Tensor) -> Tensor:
    """Gemma 3n keeps the largest of the inputs, as many as a normal distribution would have above a
    bound.
    """
    bound = statistics.NormalDist().inv_cdf(self.activation_sparsity)
    mean, spread = inputs.mean(-1, keepdim=True), inputs.std(-1, keepdim=True, unbiased=False)
    return torch.relu(inputs - (mean + spread * bound))


_COMPLEX_ROTATION: Rewritten = (
    ("Llama4TextRotaryEmbedding", "forward", _real_angles),
    (None, "apply_rotary_emb", _rotate_pairs),
)
_INVERSE_ERROR_FUNCTION: Rewritten = (("Gemma3nTextMLP", "_gaussian_topk", _gaussian_topk),)
REWRITTEN: dict[str, Rewritten] = {
    "llama4": _COMPLEX_ROTATION,
    "llama4_text": _COMPLEX_ROTATION,
    "gemma3n": _INVERSE_ERROR_FUNCTION,
    "gemma3n_text": _INVERSE_ERROR_FUNCTION,
}
"""Model type → (class, or None for the module itself; function; replacement)."""


def _heads(states: Tensor, heads: int) -> Tensor:
    """[B, S, heads · D] → [B, heads, S, D]."""
    B, S, width = states.shape
    return states.view(B, S, heads, width // heads).transpose(1, 2)


def _alibi(model: Any, builder: str) -> Tensor:
    """The model's own linear biases, [heads, positions]."""
    build = getattr(sys.modules[type(model).__module__], builder)
    heads = model.config.get_text_config(decoder=True).num_attention_heads
    table: Tensor = build(torch.ones(1, ALIBI_POSITIONS, dtype=torch.int64), heads, torch.float32)[
        :, 0
    ]
    return table
