"""From virtual tokens to keys and values: the base runs once over their embeddings, at positions 0
… P-1.

Under a causal mask the keys and values of the first P positions do not depend on what follows, so
they are those that PEFT computes anew for every prompt. The embeddings enter where PEFT lets them
enter, `inputs_embeds`: a base that scales its word embeddings within its forward scales these too,
one whose embedding table scales by itself (Gemma) does not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from edgeprefix.base import Base
from edgeprefix.base.quiet import quiet_transformers
from edgeprefix.export.trace import Layer
from edgeprefix.runtime.contracts.prefix_file import Array, PrefixLayer


def run_over_embeddings(
    base: Base, layers: tuple[Layer, ...], embeddings: Tensor
) -> tuple[PrefixLayer, ...]:
    """Keys and values [H, P, D] of each layer over embeddings [P, width], in fp32; keys after
    rotary embedding.
    """
    # Without the config: it keeps all positions, also those that a window slides past
    cache: Any = DynamicCache()
    with torch.no_grad(), quiet_transformers():
        base.model(inputs_embeds=embeddings[None], past_key_values=cache, use_cache=True)
    return tuple(PrefixLayer(*_states(cache, layer.index)) for layer in layers)


def _states(cache: Any, index: int) -> tuple[Array, Array]:
    """Keys and values [H, P, D] of one layer."""
    held = cache.layers[index]
    keys, values = (states[0].float().contiguous().numpy() for states in (held.keys, held.values))
    return keys, values
