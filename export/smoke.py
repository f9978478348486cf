"""`--smoke`: a two-layer copy goes through the whole export first, so that a problem of the
architecture shows in seconds.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from edgeprefix.base import Base
from edgeprefix.base.attention import reference_attention
from edgeprefix.base.quiet import quiet_transformers
from edgeprefix.runtime.contracts.identity import BaseIdentity

_loader: Any = AutoModelForCausalLM
_VOCABULARY = 512
_POSITIONS = 1024


def smoke_base(config: Any, folder: Path) -> Base:
    """A random model of the same architecture and widths, with two layers (one of each kind, if it
    has more) and few tokens.
    """
    with quiet_transformers():
        torch.manual_seed(0)
        model = _loader.from_config(
            _cut(config),
            dtype=torch.float32,
            attn_implementation=reference_attention(config.model_type),
            trust_remote_code=False,
        )
    identity = BaseIdentity(
        name=f"two layers of {config.model_type}",
        weights_sha256="",
        config_sha256="",
        tokenizer_sha256="",
    )
    return Base(
        folder=folder, identity=identity, model=model.eval().requires_grad_(False), tokenizer=None
    )


def _cut(config: Any) -> Any:
    """A copy of the configuration with two layers and a small vocabulary."""
    small = copy.deepcopy(config)
    text = small.get_text_config(decoder=True)
    kinds = getattr(text, "layer_types", None)
    if kinds:
        kinds = list(dict.fromkeys(kinds))
        kinds = kinds * (2 if len(kinds) == 1 else 1)
        text.layer_types = kinds
    text.num_hidden_layers = len(kinds) if kinds else 2
    text.vocab_size = min(text.vocab_size, _VOCABULARY)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if getattr(text, name, None) is not None:
            setattr(text, name, 0)
    if (getattr(text, "max_position_embeddings", None) or 0) > _POSITIONS and not _scaled(text):
        text.max_position_embeddings = _POSITIONS
    return small


def _scaled(text: Any) -> bool:
    """Whether angles depend on the base's own limit, so that another limit would be another
    architecture.
    """
    return "default" not in str(getattr(text, "rope_parameters", None) or "default")
