"""A model's own forward, with its attention handed to a function of ours.

transformers lets attention and mask functions be registered by name. Within `intercepted(model, attend)` the model calls
`attend` with the queries, keys and values of the NEW tokens, layer by layer; no model code is forked, and everything is as
before when the block ends. `rotary.py` uses it to learn how a model rotates, `trace.py` to emit the graph's attention nodes.
Letters: B batch, S new tokens, H key/value heads, D head size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from edgeprefix.runtime.errors import ExportError

_NAME = "edgeprefix"


@dataclass(frozen=True, kw_only=True)
class AttentionCall:
    """One layer's attention over new tokens. `query` is [B, heads, S, D], `key` and `value` are [B, H, S, D]."""

    layer: int
    """Index of the layer's entry in the cache."""
    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    window: int | None = None
    """Tokens that a query sees, its own included; None for all."""
    softcap: float | None = None
    sink: Tensor | None = None
    """[heads]: a logit of each head that takes part in the softmax and has no value."""


Attend = Callable[[AttentionCall], Tensor]
"""Gives the attention's output, [B, S, heads, D]."""


class PassThroughCache(Cache):
    """Hands new keys and values straight to the attention function, and remembers which layer they belong to."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.layer: int | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keys and values as they came: the graph's attention node owns the memory."""
        self.layer = layer_idx
        return key_states, value_states

    def take_layer(self) -> int:
        """The layer of the latest update, once. Raises ExportError when attention was not preceded by one."""
        if self.layer is None:
            raise ExportError(
                "this architecture lets a layer attend to keys and values of another layer (shared key/value layers), "
                "which the in-place cache does not support"
            )
        layer, self.layer = self.layer, None
        return layer

    def get_seq_length(self, *args: Any, **kwargs: Any) -> int:
        """Nothing is held here; positions are given explicitly."""
        return 0

    def get_query_offset(self, *args: Any, **kwargs: Any) -> int:
        """As get_seq_length."""
        return 0

    def get_mask_sizes(self, query_length: int, *args: Any, **kwargs: Any) -> tuple[int, int]:
        """Only the new tokens, at offset 0; masks are never built from it."""
        return query_length, 0

    def __bool__(self) -> bool:
        return True


@contextlib.contextmanager
def intercepted(model: PreTrainedModel, attend: Attend) -> Iterator[PassThroughCache]:
    """Lets `attend` answer the model's attention calls; yields the cache to pass as `past_key_values`."""
    cache = PassThroughCache()

    def attention(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        scaling: float | None = None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        return attend(_call(cache.take_layer(), query, key, value, scaling, options)), None

    previous = model.config._attn_implementation
    AttentionInterface.register(_NAME, attention)
    AttentionMaskInterface.register(_NAME, _no_mask)
    try:
        model.set_attn_implementation(_NAME)
        if model.config._attn_implementation != _NAME:
            raise ExportError(
                f"{model.config.model_type}: its attention does not go through transformers' attention interface, "
                "and edgeprefix has no adapter for it"
            )
        yield cache
    finally:
        model.set_attn_implementation(previous)
        ALL_ATTENTION_FUNCTIONS._global_mapping.pop(_NAME, None)
        ALL_MASK_ATTENTION_FUNCTIONS._global_mapping.pop(_NAME, None)


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """Causality and windows are the attention node's own."""


def _call(
    layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, options: dict[str, Any]
) -> AttentionCall:
    if value.shape[-1] != key.shape[-1]:
        raise ExportError(
            f"keys have size {key.shape[-1]} and values {value.shape[-1]} (latent attention); "
            "the attention node needs one head size for both"
        )
    softcap, window = options.get("softcap"), options.get("sliding_window")
    return AttentionCall(
        layer=layer, query=query, key=key, value=value,
        scale=float(query.shape[-1] ** -0.5 if scaling is None else scaling),
        window=int(window) if window else None,
        softcap=float(softcap) if softcap else None,
        sink=options.get("s_aux"),
    )  # fmt: skip
