"""The configuration of a GGUF file's model, as transformers has it.

A function for each architecture says which facts of the file become which values. Whatever the file
states beyond that is refused by name (facts.py), and so is every architecture that is not in
`ARCHITECTURES`. Where llama.cpp itself has a constant that no file states, it stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from edgeprefix.base.gguf.facts import ArchitectureFacts
from edgeprefix.base.gguf.kinds import numbers
from edgeprefix.base.gguf.reader import GgufFile
from edgeprefix.base.quiet import first_line, quiet_transformers
from edgeprefix.base.refusals import refusal
from edgeprefix.runtime.errors import CheckpointError, UnsupportedBaseError

EMBEDDING, HEAD = "token_embd.weight", "output.weight"
ROPE_DIVISORS = "rope_freqs.weight"
_LLAMA3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""Of every Llama 3.1 and later: GGUF files hold what follows from them, not these."""

Values = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How one of llama.cpp's architectures is read."""

    model_type: str
    """transformers' name of it."""
    values: Callable[[ArchitectureFacts, GgufFile], Values]
    pairs: bool = False
    """Whether rows of queries and keys stand in neighbouring pairs, where transformers has
    halves.
    """
    norms_from_one: bool = False
    """Whether norms are stored with the one that transformers adds when it multiplies."""
    columns: bool = False
    """Whether transformers keeps matrices as [K, N] (GPT-2)."""


def read_gguf_config(file: GgufFile) -> Any:
    """The configuration. Raises CheckpointError when the file does not state what it must,
    UnsupportedBaseError for an architecture, or a fact of one, that cannot be read.
    """
    found = architecture_of(file)
    facts = ArchitectureFacts(file)
    _require_layers(facts, file)
    values = found.values(facts, file) | _vocabulary(file)
    facts.passed_over(["vocab_size"])
    facts.require_all_asked()
    try:
        with quiet_transformers():
            config = AutoConfig.for_model(found.model_type, **values)
    except (ValueError, TypeError, KeyError, AttributeError, StrictDataclassError) as error:
        raise CheckpointError(
            f"{file.path}: its facts are no configuration that transformers takes: "
            f"{first_line(error)}"
        ) from error
    if reason := refusal(config):
        raise UnsupportedBaseError(f"{file.path}: {found.model_type} cannot be exported: {reason}")
    return config


def _require_layers(facts: ArchitectureFacts, file: GgufFile) -> None:
    """Raises CheckpointError unless the file has the tensors of as many layers as it states."""
    stated = facts.integer("block_count")
    numbered = {name.split(".")[1] for name in file.tensors if name.startswith("blk.")}
    if len(numbered) != stated:
        raise CheckpointError(
            f"{file.path} states {stated} layers and holds tensors of {len(numbered)}; download "
            "another file of the model"
        )


def architecture_of(file: GgufFile) -> Architecture:
    """How the file's model is read. Raises UnsupportedBaseError when it is no language model, or of
    an architecture that cannot be read.
    """
    kind = file.facts.get("general.type", "model")
    if kind != "model":
        raise UnsupportedBaseError(
            f"{file.path} is no model but of the type {kind}; give the model's own GGUF file"
        )
    found = ARCHITECTURES.get(file.architecture)
    if found is None:
        raise UnsupportedBaseError(
            f"{file.path} is of the architecture {file.architecture}, and GGUF files are read of "
            f"{', '.join(sorted(ARCHITECTURES))}; give the checkpoint that it was made of"
        )
    return found


def _vocabulary(file: GgufFile) -> Values:
    table = file.tensors.get(EMBEDDING)
    if table is None or len(table.shape) != 2:
        raise CheckpointError(
            f"{file.path} has no {EMBEDDING}: it is no language model; give the model's own GGUF "
            "file"
        )
    ids = {
        f"{name}_token_id": file.facts.get(f"tokenizer.ggml.{key}_token_id")
        for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }
    return {"vocab_size": table.shape[0], "tie_word_embeddings": HEAD not in file.tensors} | ids


def _decoder(facts: ArchitectureFacts, file: GgufFile) -> Values:
    """What all decoders with rotary positions state in the same words."""
    heads, width = facts.integer("attention.head_count"), facts.integer("embedding_length")
    size = facts.integer("attention.key_length", width // max(heads, 1))
    facts.require("attention.value_length", size)
    return {
        "hidden_size": width,
        "num_hidden_layers": facts.integer("block_count"),
        "intermediate_size": facts.integer("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": facts.integer("attention.head_count_kv", heads),
        "head_dim": size,
        "max_position_embeddings": facts.integer("context_length"),
        "rope_parameters": _rope(facts, file, size),
    }


def _rope(facts: ArchitectureFacts, file: GgufFile, size: int) -> Values:
    """How positions are turned into angles."""
    rope: Values = {"rope_type": "default", "rope_theta": facts.real("rope.freq_base", 10000.0)}
    turned = facts.integer("rope.dimension_count", size)
    if turned != size:
        rope["partial_rotary_factor"] = turned / size
    facts.passed_over(["rope.scaling.finetuned"])
    scaling = facts.text("rope.scaling.type", "none")
    if scaling == "linear":
        rope |= {"rope_type": "linear", "factor": facts.real("rope.scaling.factor")}
    elif scaling == "yarn":
        rope |= _yarn(facts)
    elif scaling != "none":
        facts.require("rope.scaling.type", "none")
    if ROPE_DIVISORS in file.tensors:
        rope |= _llama3(file, rope["rope_theta"], turned)
    return rope


def _yarn(facts: ArchitectureFacts) -> Values:
    facts.require("rope.scaling.yarn_log_multiplier", 0.0)
    facts.require("rope.scaling.attn_factor", 1.0)
    return {
        "rope_type": "yarn",
        "factor": facts.real("rope.scaling.factor"),
        "original_max_position_embeddings": facts.integer("rope.scaling.original_context_length"),
        "beta_fast": facts.real("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": facts.real("rope.scaling.yarn_beta_slow", 1.0),
    }


def _llama3(file: GgufFile, theta: float, turned: int) -> Values:
    """Llama 3's scaling, told by the divisors that it gives: the largest is its factor."""
    tensor = file.tensors[ROPE_DIVISORS]
    stored = numbers(tensor.kind, tensor.data).ravel()
    factor = float(stored.max(initial=1.0))
    expected = _llama3_divisors(theta, turned, factor)
    if stored.shape != expected.shape or not np.allclose(stored, expected, rtol=1e-4):
        raise UnsupportedBaseError(
            f"{file.path}: the divisors of its angles ({ROPE_DIVISORS}) are none of Llama 3's; "
            "give the checkpoint that the file was made of"
        )
    return {"rope_type": "llama3", "factor": factor} | _LLAMA3


def _llama3_divisors(theta: float, turned: int, factor: float) -> Any:
    """What each of the angles' frequencies is divided by."""
    original = _LLAMA3["original_max_position_embeddings"]
    low, high = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
    turns = original * theta ** -(np.arange(0, turned, 2) / turned) / (2 * np.pi)
    smooth = np.clip((turns - low) / (high - low), 0, 1)  # between long waves and short ones
    return 1 / ((1 - smooth) / factor + smooth)


def _has(file: GgufFile, name: str) -> bool:
    return f"blk.0.{name}" in file.tensors


def _plain(facts: ArchitectureFacts, file: GgufFile) -> Values:
    return _decoder(facts, file) | {"rms_norm_eps": facts.real("attention.layer_norm_rms_epsilon")}


def _llama(facts: ArchitectureFacts, file: GgufFile) -> Values:
    facts.require("expert_count", 0)
    facts.require("expert_used_count", 0)
    return _plain(facts, file) | {
        "attention_bias": _has(file, "attn_q.bias"),
        "mlp_bias": _has(file, "ffn_down.bias"),
    }


def _qwen3(facts: ArchitectureFacts, file: GgufFile) -> Values:
    return _plain(facts, file) | {"attention_bias": _has(file, "attn_q.bias")}


def _gemma2(facts: ArchitectureFacts, file: GgufFile) -> Values:
    values = _plain(facts, file)
    return values | {
        "sliding_window": facts.integer("attention.sliding_window", 4096),
        "attn_logit_softcapping": facts.real("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": facts.real("final_logit_softcapping", 30.0),
        "query_pre_attn_scalar": _query_scalar(values, layers_of_largest=46),
    }


def _gemma3(facts: ArchitectureFacts, file: GgufFile) -> Values:
    values = _plain(facts, file)
    local = {
        "rope_type": "default",
        "rope_theta": facts.real("rope.freq_base_swa", 10000.0),
    }
    return values | {
        "sliding_window": facts.integer("attention.sliding_window"),
        "sliding_window_pattern": facts.integer("attention.sliding_window_pattern", 6),
        "final_logit_softcapping": facts.real("final_logit_softcapping", None),
        "query_pre_attn_scalar": _query_scalar(values, layers_of_largest=62),
        "rope_parameters": {
            "full_attention": values["rope_parameters"],
            "sliding_attention": local,
        },
    }


def _query_scalar(values: Values, *, layers_of_largest: int) -> int:
    """What queries are divided by the root of: the head's size, but in the family's largest
    model. llama.cpp knows that one by its layers, as no file states it.
    """
    if values["num_hidden_layers"] == layers_of_largest:
        return int(values["hidden_size"] // values["num_attention_heads"])
    return int(values["head_dim"])


def _phi3(facts: ArchitectureFacts, file: GgufFile) -> Values:
    values = _plain(facts, file)
    original = facts.integer(
        "rope.scaling.original_context_length", values["max_position_embeddings"]
    )
    window = facts.integer("attention.sliding_window", None)
    attention = facts.real("rope.scaling.attn_factor", None)
    factors = {
        f"{length}_factor": _divisors(file, f"rope_factors_{length}.weight")
        for length in ("long", "short")
    }
    values["original_max_position_embeddings"] = original
    values["rope_parameters"].setdefault("partial_rotary_factor", 1.0)
    if all(found is not None for found in factors.values()):
        values["rope_parameters"] |= {
            "rope_type": "longrope",
            "original_max_position_embeddings": original,
            **({} if attention is None else {"attention_factor": attention}),
            **factors,
        }
    # A window as long as all positions is llama.cpp's word for none
    return values | {"sliding_window": window if window and window < original else None}


def _divisors(file: GgufFile, name: str) -> list[float] | None:
    tensor = file.tensors.get(name)
    if tensor is None:
        return None
    found: list[float] = numbers(tensor.kind, tensor.data).ravel().tolist()
    return found


def _starcoder2(facts: ArchitectureFacts, file: GgufFile) -> Values:
    return _decoder(facts, file) | {
        "norm_epsilon": facts.real("attention.layer_norm_epsilon"),
        "use_bias": _has(file, "attn_q.bias"),
        "sliding_window": None,
    }


def _granite(facts: ArchitectureFacts, file: GgufFile) -> Values:
    return _llama(facts, file) | {
        "attention_multiplier": facts.real("attention.scale"),
        "embedding_multiplier": facts.real("embedding_scale"),
        "residual_multiplier": facts.real("residual_scale"),
        "logits_scaling": facts.real("logit_scale"),
    }


def _gpt2(facts: ArchitectureFacts, file: GgufFile) -> Values:
    return {
        "n_embd": facts.integer("embedding_length"),
        "n_layer": facts.integer("block_count"),
        "n_head": facts.integer("attention.head_count"),
        "n_inner": facts.integer("feed_forward_length"),
        "n_positions": facts.integer("context_length"),
        "layer_norm_epsilon": facts.real("attention.layer_norm_epsilon"),
    }


ARCHITECTURES: Mapping[str, Architecture] = {
    "gemma": Architecture(model_type="gemma", values=_plain, norms_from_one=True),
    "gemma2": Architecture(model_type="gemma2", values=_gemma2, norms_from_one=True),
    "gemma3": Architecture(model_type="gemma3_text", values=_gemma3, norms_from_one=True),
    "gpt2": Architecture(model_type="gpt2", values=_gpt2, columns=True),
    "granite": Architecture(model_type="granite", values=_granite, pairs=True),
    "llama": Architecture(model_type="llama", values=_llama, pairs=True),
    "olmo2": Architecture(model_type="olmo2", values=_plain),
    "phi3": Architecture(model_type="phi3", values=_phi3),
    "qwen2": Architecture(model_type="qwen2", values=_plain),
    "qwen3": Architecture(model_type="qwen3", values=_qwen3),
    "smollm3": Architecture(model_type="smollm3", values=_llama, pairs=True),
    "starcoder2": Architecture(model_type="starcoder2", values=_starcoder2),
}
"""llama.cpp's name → how it is read."""
