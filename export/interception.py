"""A model's own forward, with its attention handed to a function of ours.

transformers lets attention and mask functions be registered by name. Within `intercepted(model,
attend)` the model calls `attend` with the queries, keys and values of the NEW tokens, layer by
layer; no model code is forked, and everything is as before when the block ends. `rotary.py` uses it
to learn how a model rotates, `trace.py` to emit the graph's attention nodes. Letters: B batch, S
new tokens, H key/value heads, D head size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from edgeprefix.export.adapters import adapted, has_adapter, traceable
from edgeprefix.export.calls import AttentionCall
from edgeprefix.runtime.errors import ExportError

_NAME = "edgeprefix"


Attend = Callable[[AttentionCall], Tensor]
"""Gives the attention's output, [B, S, heads, D]."""


class _NoLayers(list[Any]):
    """What stands for the cache's layers: a model that asks for one keeps something else there than
    keys and values.
    """

    def __getitem__(self, index: Any) -> Any:
        raise ExportError(
            "its layers keep a state of another kind than keys and values (state space, linear "
            "attention, convolution), "
            "which a prefix cannot enter"
        )


class PassThroughCache(Cache):
    """Hands new keys and values straight to the attention function, and remembers which layer they
    belong to.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.layers = _NoLayers()
        self._waiting: int | None = None
        self._held: dict[int, tuple[Tensor, Tensor]] = {}
        """Keys and values of each layer, as the cache was given them."""

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keys and values as they came: the graph's attention node owns the memory."""
        self._waiting = layer_idx
        self._held[layer_idx] = key_states, value_states
        return key_states, value_states

    def take_layer(self) -> int:
        """The layer of the latest update, once. Raises ExportError when attention was not preceded
        by one.
        """
        if self._waiting is None:
            raise ExportError(
                "it attends to the same keys more than once, which the in-place cache does not "
                "support"
            )
        layer, self._waiting = self._waiting, None
        return layer

    def layer_of(self, key: Tensor, value: Tensor) -> tuple[int, bool]:
        """The layer whose keys and values attention is asked for, and whether they are those of an
        earlier layer.

        Raises ExportError when they are not what the cache holds.
        """
        if self._waiting is None:
            for layer, (held_key, held_value) in self._held.items():
                if key is held_key and value is held_value:
                    return layer, True
        layer = self.take_layer()
        if key.shape != self._held[layer][0].shape:
            raise ExportError(
                "it changes keys between its cache and its attention, which the in-place cache "
                "does not support"
            )
        return layer, False

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
    """Lets `attend` answer the model's attention calls; yields the cache to pass as
    `past_key_values`.

    Raises ExportError when the model's attention cannot be had.
    """
    cache = PassThroughCache()
    swapped = (
        adapted(model, attend, cache.take_layer)
        if has_adapter(model)
        else _registered(model, attend, cache)
    )
    with swapped, traceable(model):
        yield cache


@contextlib.contextmanager
def _registered(model: PreTrainedModel, attend: Attend, cache: PassThroughCache) -> Iterator[None]:
    """Registers attention and masks with transformers' interface for the time of the block."""

    windows: list[int | None] = []  # of the masks that the model asks for

    def mask(*args: Any, local_size: int | None = None, **kwargs: Any) -> None:
        """Causality and windows are the attention node's own."""
        windows.append(local_size)

    def attention(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any = None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        if attention_mask is not None:
            raise ExportError(
                "it computes an attention mask of its own from the text, which the attention node "
                "cannot take"
            )
        layer, shared = cache.layer_of(key, value)
        # Some families leave the window to the mask alone; with one mask for all layers there is no
        # doubt whose it is.
        if len(set(windows)) == 1:
            options["sliding_window"] = options.get("sliding_window") or windows[0]
        return attend(_call(layer, query, key, value, options, shared=shared)), None

    previous = model.config._attn_implementation
    AttentionInterface.register(_NAME, attention)
    AttentionMaskInterface.register(_NAME, mask)
    try:
        model.set_attn_implementation(_NAME)
        if model.config._attn_implementation != _NAME:
            raise ExportError(
                "its attention does not go through transformers' attention interface, and "
                "edgeprefix has no adapter for it"
            )
        yield
    finally:
        model.set_attn_implementation(previous)
        ALL_ATTENTION_FUNCTIONS._global_mapping.pop(_NAME, None)
        ALL_MASK_ATTENTION_FUNCTIONS._global_mapping.pop(_NAME, None)


def _call(
    layer: int, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any], *, shared: bool
) -> AttentionCall:
    scaling, softcap, window = (
        options.get(name) for name in ("scaling", "softcap", "sliding_window")
    )
    return AttentionCall(
        layer=layer, query=query, key=key, value=value, shared=shared,
        scale=float(query.shape[-1] ** -0.5 if scaling is None else scaling),
        window=int(window) if window else None,
        softcap=float(softcap) if softcap else None,
        sink=options.get("s_aux"),
    )  # fmt: skip
