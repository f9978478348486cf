"""Tiny GGUF files of tiny models, as llama.cpp's own converter writes them: names and permutations,
norms with their one, a tokenizer's facts; weights in any kind.

Kinds that the package gguf cannot quantise (the K kinds) are given random blocks, and the model
that is compared with is given the numbers that they stand for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from llama3_factors import llama3_factors
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
    Starcoder2Config,
    Starcoder2ForCausalLM,
)

from tiny import VOCABULARY, randomise, tiny_gpt2, tiny_llama, tiny_tokenizer

Array = np.ndarray
QUANTISABLE = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
"""By the package gguf."""
WITH_STEPS = (*QUANTISABLE, "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
HALVES = {  # where the fp16 numbers of a block lie
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82],
    "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_XS": [0], "IQ2_XXS": [0],
}  # fmt: skip
_WIDE = {
    "vocab_size": VOCABULARY, "hidden_size": 256, "intermediate_size": 256,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 256, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1,
}  # fmt: skip
_SCALED = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip


def _model(config: Any, model: Any, **changes: Any) -> Callable[[], PreTrainedModel]:
    return lambda: randomise(model(config(**(_WIDE | changes))))


MODELS: Mapping[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: tiny_llama(hidden_size=256, intermediate_size=256),
    "llama, untied, biases": lambda: tiny_llama(
        hidden_size=256, intermediate_size=256, tie_word_embeddings=False, attention_bias=True,
        mlp_bias=True,
    ),
    "llama, long": lambda: tiny_llama(hidden_size=256, rope_parameters=_SCALED, head_dim=128),
    "llama, other head": lambda: tiny_llama(hidden_size=256, head_dim=32),
    "qwen2": _model(Qwen2Config, Qwen2ForCausalLM),
    "qwen3": _model(Qwen3Config, Qwen3ForCausalLM, head_dim=32),
    "gemma": _model(GemmaConfig, GemmaForCausalLM, head_dim=32),
    "gemma2": _model(
        Gemma2Config, Gemma2ForCausalLM, head_dim=32, sliding_window=16, query_pre_attn_scalar=32
    ),
    "gemma3": _model(
        Gemma3TextConfig, Gemma3ForCausalLM, head_dim=64, sliding_window=16, num_hidden_layers=7,
        query_pre_attn_scalar=64,
    ),
    "phi3": _model(Phi3Config, Phi3ForCausalLM),
    "smollm3": _model(SmolLM3Config, SmolLM3ForCausalLM, num_hidden_layers=5),
    "olmo2": _model(Olmo2Config, Olmo2ForCausalLM),
    "granite": _model(
        GraniteConfig, GraniteForCausalLM, attention_multiplier=0.1, embedding_multiplier=6.0,
        residual_multiplier=0.3, logits_scaling=4.0,
    ),
    "starcoder2": _model(Starcoder2Config, Starcoder2ForCausalLM, sliding_window=None),
    "gpt2": lambda: tiny_gpt2(n_embd=256),
}  # fmt: skip
"""A model for each architecture that is read."""

_PAIRS = ("llama", "granite", "smollm3")
_FROM_ONE = ("gemma", "gemma2", "gemma3")


def write_gguf(
    model: PreTrainedModel, path: Path, *, kind: str = "F32", **facts: Any
) -> dict[str, Array]:
    """Writes the model with its matrices in `kind`, and puts the numbers that it then has into the
    model itself; gives the file's tensors by their names. `facts` are added as they are, None
    leaves one out.
    """
    config: Any = model.config
    architecture = {"gemma3_text": "gemma3"}.get(config.model_type, config.model_type)
    writer = gguf.GGUFWriter(str(path), architecture)
    values = _facts(config, architecture) | tokenizer_facts() | facts
    for key, value in values.items():
        if value is not None:
            add_fact(writer, key, value)
    writer.data_alignment = values.get("general.alignment", writer.data_alignment)
    tensors = _tensors(model, architecture, kind)
    for name, (data, stored) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=stored)
    if getattr(config, "rope_parameters", {}).get("rope_type") == "llama3":
        writer.add_tensor(
            "rope_freqs.weight", llama3_factors(config.rope_parameters, config.head_dim)
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {name: data for name, (data, _) in tensors.items()}


def add_fact(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _facts(config: Any, architecture: str) -> dict[str, Any]:
    """What llama.cpp's converter states of an architecture."""
    if architecture == "gpt2":
        own = {
            "embedding_length": config.n_embd, "block_count": config.n_layer,
            "attention.head_count": config.n_head, "feed_forward_length": 4 * config.n_embd,
            "context_length": config.n_positions,
            "attention.layer_norm_epsilon": config.layer_norm_epsilon,
        }  # fmt: skip
        return {f"gpt2.{key}": value for key, value in own.items()}
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    rope = config.rope_parameters
    own = {
        "context_length": config.max_position_embeddings, "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers, "feed_forward_length": config.intermediate_size,
        "attention.head_count": heads, "attention.head_count_kv": config.num_key_value_heads,
        "rope.freq_base": float(rope.get("full_attention", rope)["rope_theta"]),
        "vocab_size": config.vocab_size,
    }  # fmt: skip
    if size * heads != config.hidden_size or architecture.startswith("gemma"):
        own |= {"attention.key_length": size, "attention.value_length": size}
    if not architecture.startswith("gemma"):
        own["rope.dimension_count"] = size
    if architecture == "starcoder2":
        own["attention.layer_norm_epsilon"] = config.norm_epsilon
    else:
        own["attention.layer_norm_rms_epsilon"] = config.rms_norm_eps
    return {f"{architecture}.{key}": value for key, value in (own | _more(config)).items()}


def _more(config: Any) -> dict[str, Any]:
    """What only some architectures state."""
    if config.model_type == "gemma2":
        return {
            "attention.sliding_window": config.sliding_window,
            "attn_logit_softcapping": config.attn_logit_softcapping,
            "final_logit_softcapping": config.final_logit_softcapping,
        }
    if config.model_type == "gemma3_text":
        return {"attention.sliding_window": config.sliding_window}
    if config.model_type == "granite":
        return {
            "attention.scale": config.attention_multiplier,
            "embedding_scale": config.embedding_multiplier,
            "residual_scale": config.residual_multiplier,
            "logit_scale": config.logits_scaling,
        }
    return {}


def tokenizer_facts() -> dict[str, Any]:
    """The tiny byte-level tokenizer's."""
    content = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.get)
    special = {token["content"] for token in content["added_tokens"]}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in content["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.padding_token_id": 1,
    }


def _tensors(model: PreTrainedModel, architecture: str, kind: str) -> dict[str, tuple[Array, Any]]:
    config: Any = model.config
    arch = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    found: dict[str, tuple[Array, Any]] = {}
    for number, (parameter, tensor) in enumerate(model.named_parameters()):
        stem, _, suffix = parameter.rpartition(".")
        name = f"{names.get_name(stem)}.{suffix}"
        numbers = _turned(tensor.detach().numpy(), name, architecture, config)
        matrix = numbers.ndim == 2 and "position" not in name
        data, stored, numbers = quantised(numbers, kind if matrix else "F32", seed=number)
        found[name] = data, stored
        with torch.no_grad():
            back = _turned(numbers, name, architecture, config, back=True)
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(back)))
    return found


def _turned(
    numbers: Array, name: str, architecture: str, config: Any, *, back: bool = False
) -> Array:
    """A parameter as the file has it; `back`, a file's tensor as the parameter has it."""
    part = name.split(".")[-2]
    if architecture in _PAIRS and part in ("attn_q", "attn_k"):
        heads = config.num_attention_heads if part == "attn_q" else config.num_key_value_heads
        pairs = (heads, len(numbers) // heads // 2, 2) if back else (heads, 2, -1)
        return numbers.reshape(*pairs, *numbers.shape[1:]).swapaxes(1, 2).reshape(numbers.shape)
    if architecture in _FROM_ONE and name.endswith("norm.weight"):
        return numbers - np.float32(1) if back else numbers + np.float32(1)
    if architecture == "gpt2" and name.startswith("blk.") and numbers.ndim == 2:
        return np.ascontiguousarray(numbers.T)
    return numbers


def quantised(numbers: Array, kind: str, *, seed: int = 0) -> tuple[Array, Any, Array]:
    """Bytes of that kind, its number in the format, and the numbers that the bytes stand for."""
    stored = gguf.GGMLQuantizationType[kind]
    numbers = np.ascontiguousarray(numbers, np.float32)
    if kind in ("F32", "F16", "BF16", *QUANTISABLE):
        data = gguf.quantize(numbers, stored)
    else:
        data = random_blocks(kind, *numbers.shape, seed=seed)
    return data, stored, gguf.dequantize(data, stored).reshape(numbers.shape)


def random_blocks(kind: str, rows: int, columns: int, *, seed: int = 0) -> Array:
    """Rows of random blocks, their scales about as large as the tiny models' weights ask for."""
    generator = np.random.default_rng(seed)
    count, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    blocks = generator.integers(0, 256, (rows * columns // count, size), dtype=np.uint8)
    spread = {"Q4_K": 2e-4, "Q5_K": 1e-4, "Q6_K": 4e-5, "Q2_K": 2e-3, "Q3_K": 2e-3}.get(kind, 0.01)
    for place in HALVES[kind]:
        scales = generator.normal(0, spread, (len(blocks), 1)).astype(np.float16)
        blocks[:, place : place + 2] = scales.view(np.uint8)
    return blocks.reshape(rows, -1)
