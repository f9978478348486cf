"""Architectures that no graph of keys and values can hold: told from the configuration, by name,
before weights are read.

What the configuration does not tell shows when the model's forward is looked at (`interception.py`,
`trace.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_STATES = "keep a state of another kind than keys and values, which a prefix cannot enter"
_KINDS = {
    "linear_attention": f"its linear-attention or state-space layers {_STATES}",
    "mamba": f"its state-space layers {_STATES}",
    "recurrent": f"its recurrent layers {_STATES}",
    "conv": f"its convolution layers {_STATES}",
    "hybrid": f"its hybrid layers (attention with a state space or a convolution) {_STATES}",
    "hybrid_sliding": f"its hybrid layers (attention with a convolution) {_STATES}",
    "indexed_attention": (
        "which keys a token sees is chosen from the text by an index (sparse attention), not by "
        "position"
    ),
    "compressed_sparse_attention": (
        "its cache holds compressed blocks of tokens, not the keys and values of each"
    ),
    "heavily_compressed_attention": (
        "its cache holds compressed blocks of tokens, not the keys and values of each"
    ),
}
"""Kind of layer → why it cannot be had."""

_TYPES = {
    "cpmant": "its prompt is read in both directions, so it cannot be fed in pieces",
    "diffllama": (
        "its differential attention reads every key with two values, and the attention node holds "
        "one"
    ),
    "doge": (
        "which keys a token sees follows from all values in the cache (a dynamic mask), not from "
        "positions"
    ),
    "jetmoe": (
        "it sorts tokens into lists whose lengths follow from the text, which torch.onnx cannot "
        "trace"
    ),
    "openai-gpt": (
        "transformers runs it without a cache of keys and values, so no prefix "
        "can stand before its text"
    ),
    "reformer": "it attends to buckets of hashed tokens, not to a cache of keys and values",
    "rwkv": f"its recurrent layers {_STATES}",
    "xlm": "it is a masked language model, which reads a text in both directions",
    "xlnet": (
        "it attends to a memory of hidden states with relative positions, not to a cache of keys "
        "and values"
    ),
    "xlstm": f"its recurrent layers {_STATES}",
    "trocr": "it is the decoder of an encoder-decoder and attends to an encoder",
    "dbrx": (
        "it computes its experts in a loop over those that were chosen, which torch.onnx cannot "
        "trace"
    ),
    "gemma4_assistant": "it drafts for another model and reads that model's keys and values",
    "gemma4_unified_assistant": (
        "it drafts for another model and reads that model's keys and values"
    ),
    "blt": (
        "it reads bytes through an encoder and a decoder of patches, whose lengths follow from the "
        "text"
    ),
}
"""Model type → why it cannot be had."""


ENCODERS = frozenset(
    {
        "bert",
        "bert-generation",
        "big_bird",
        "camembert",
        "data2vec-text",
        "electra",
        "ernie",
        "megatron-bert",
        "rembert",
        "roberta",
        "roberta-prelayernorm",
        "roc_bert",
        "roformer",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Types that transformers counts among language models since they can be the decoder of an
encoder-decoder.
"""


def refusal(config: Any) -> str | None:
    """Why a base of this configuration cannot be exported, None when nothing in the configuration
    speaks against it.
    """
    if reason := _TYPES.get(config.model_type):
        return reason
    if config.model_type in ENCODERS and not getattr(config, "is_decoder", False):
        return "it is an encoder, which reads a text in both directions"
    text = config.get_text_config(decoder=True)
    if reason := next((_KINDS[kind] for kind in _layer_kinds(text) if kind in _KINDS), None):
        return reason
    if _whole(text).get("kv_lora_rank"):
        return (
            "its cache holds latents that become keys and values anew in every step (latent "
            "attention), "
            "and the attention node keeps keys and values themselves"
        )
    return None


def _layer_kinds(text: Any) -> Iterable[str]:
    """Kinds of the layers, in order; configurations name them in one of three ways."""
    values = _whole(text)
    for name in ("layer_types", "layers_block_type", "block_types"):
        found = values.get(name) or getattr(text, name, None)
        if found:
            return [str(kind) for kind in found]
    return []


def _whole(config: Any) -> dict[str, Any]:
    """All values as they stand in config.json (attributes that vary by layer cannot be asked for
    one by one).
    """
    values: dict[str, Any] = config.to_dict()
    return values
