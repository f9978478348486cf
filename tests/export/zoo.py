"""Tiny random models of every causal language model type that transformers registers.

One rule makes them: the type's own default configuration with every size turned down, sliding
windows shorter than the prompts, and random weights, biases and norms. A few types need a word
more, in `_CHANGES`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from edgeprefix.base.attention import reference_attention

VOCABULARY = 384
POSITIONS = 256
WINDOW = 12

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "n_embd": 64,
    "d_model": 64,
    "embed_dim": 64,
    "dim": 64,
    "word_embed_proj_dim": 64,
    "embedding_size": 64,
    "intermediate_size": 96,
    "n_inner": 96,
    "ffn_dim": 96,
    "d_inner": 96,
    "dff": 96,
    "ffn_hidden_size": 96,
    "d_ff": 96,
    "num_hidden_layers": 2,
    "n_layer": 2,
    "num_layers": 2,
    "n_layers": 2,
    "decoder_layers": 2,
    "num_attention_heads": 4,
    "n_head": 4,
    "num_heads": 4,
    "n_heads": 4,
    "attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": POSITIONS,
    "n_positions": POSITIONS,
    "max_seq_len": POSITIONS,
    "n_ctx": POSITIONS,
    "sliding_window": WINDOW,
    "sliding_window_size": WINDOW,
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "moe_topk": 2,
    "moe_intermediate_size": 48,
    "shared_expert_intermediate_size": 48,
    "n_shared_experts": 1,
    "ffn_hidden_size_moe": 48,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "decoder_sparse_step": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "query_pre_attn_scalar": 16,
    "rotary_dim": 16,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8,
    "image_size": 32,
    "depth": 2,
    "mlp_dim": 96,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
    "decoder_start_token_id": 0,
}

_CHANGES: dict[str, dict[str, Any]] = {
    "gpt_neo": {
        "attention_types": [[["global", "local"], 1]],
        "window_size": WINDOW,
    },  # two layers, one of each kind
    "exaone4": {
        "sliding_window_pattern": 2,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "qwen2": {
        "use_sliding_window": True,
        "max_window_layers": 1,
        "layer_types": ["full_attention", "sliding_attention"],
    },
    "qwen3": {
        "use_sliding_window": True,
        "max_window_layers": 1,
        "layer_types": ["full_attention", "sliding_attention"],
    },
    "phi3": {"rope_scaling": None},
    "dbrx": {
        "attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0},
        "ffn_config": {
            "ffn_hidden_size": 96,
            "moe_num_experts": 4,
            "moe_top_k": 2,
            "hidden_size": 64,
        },
    },
    "beam": {"layer_types": ["sliding_attention", "full_attention"]},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": None,
        },
    },
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "dots3_note_text": {"num_key_value_heads": 4},
    "zaya": {"num_experts_per_tok": 1},
    "reformer": {"is_decoder": True},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0],
        "intermediate_size": [96] * 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "gemma4_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "gemma4_unified_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
}


_LARGEST = 12_000_000  # parameters


class TooLargeError(ValueError):
    """A type whose configuration keeps parts that are not small."""


def model_types() -> list[str]:
    """Every causal language model type of the installed transformers, sorted."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(model_type: str, **changes: Any) -> Any:
    """The type's configuration with every size turned down, in its parts too. `changes`
    come last.
    """
    return AutoConfig.for_model(model_type, **_small(AutoConfig.for_model(model_type), changes))


def _small(default: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What to turn down in a configuration of which this is the default."""
    own = _CHANGES.get(default.model_type, {})
    wanted = _SIZES | own | changes
    values = {name: value for name, value in wanted.items() if name in own or _has(default, name)}
    if default.to_dict().get("layer_types"):
        values.setdefault("layer_types", _two_kinds(default.layer_types))
    for name in default.sub_configs:
        part = getattr(default, name, None)
        if part is not None and name not in own:
            values[name] = {"model_type": part.model_type} | _small(part, {})
    return values


def tiny_model(model_type: str, *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random model of that type, fp32, in evaluation mode."""
    config = tiny_config(model_type, **changes)
    with torch.device("meta"):
        size = sum(
            parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters()
        )
    if size > _LARGEST:
        raise TooLargeError(
            f"{model_type} has {size:,} parameters that these sizes do not turn down"
        )
    torch.manual_seed(seed)
    attention = reference_attention(model_type)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(
                    parameter + 0.1 * noise if parameter.dim() < 2 else parameter + 0.05 * noise
                )
    return copy.deepcopy(model).eval().requires_grad_(False)


def _has(config: Any, name: str) -> bool:
    return name in config.to_dict() or name in getattr(config, "attribute_map", {})


def _two_kinds(layer_types: list[str]) -> list[str]:
    """Two layers that between them are of every kind that the default has (of its first two, when
    there are more).
    """
    kinds = list(dict.fromkeys(layer_types))
    return (kinds * 2)[:2]
