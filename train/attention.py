"""Attention over a prefix that all rows of a batch share, registered with transformers like any
attention implementation.

transformers would copy the prefix into every row's cache and hand the lot to one kernel. Here the
prefix stays [H, P, D]: its scores are one large matrix product for the whole batch, and its
gradient comes out summed already. On a CPU a training step takes about half of the time of
`scaled_dot_product_attention`, whose bf16 backward is slow there (docs/lab/training-speed.md).

The name is ROUTE; no model code is touched. The computation itself is in `shared_prefix.py`.
Letters: B rows, S text tokens, H key/value heads, G query heads per key/value head, P prefix
length, D head size. A packing of rows comes to the model as one row, B = 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from edgeprefix.train import shared_prefix
from edgeprefix.train.packing import Packing
from edgeprefix.train.shared_prefix import SharedPrefixAttention, Visible

ROUTE = "edgeprefix_shared_prefix"

KeyValues = Sequence[tuple[Tensor, Tensor]]
"""Per layer: keys and values of the prefix, each [H, P, D]."""

# Above this many scores (B·H·G·S·(P+S)) the score matrix is not kept; the library's kernel, which
# never stores it, is used.
_MAX_STORED_SCORES = 1 << 26


class _Reading:
    """What the forward pass that runs now reads: attention functions get no argument of ours from
    every model.
    """

    def __init__(self, prefix: KeyValues, packing: Packing | None) -> None:
        self.prefix = prefix
        self._packing = packing
        self._visible: dict[int, Visible] = {}

    def packing(self, query: Tensor) -> Packing:
        """As it was given; else the batch's rows, all of one length."""
        if self._packing is None:
            self._packing = Packing([query.shape[2]] * query.shape[0], query.device)
        return self._packing

    def visible(
        self, mask: Tensor | None, packing: Packing, prefix_length: int, device: torch.device
    ) -> Visible:
        """What the model's mask [1 or B, 1, S, P+S] shows; layers of one kind share theirs."""
        if id(mask) not in self._visible:
            longest = packing.longest
            if mask is None:
                seen = torch.ones(
                    longest, prefix_length + longest, dtype=torch.bool, device=device
                ).tril(prefix_length)
            # Rows differ in length only, so what the first tokens see is what every row's first
            # tokens see
            else:
                seen = mask[0, 0, :longest, : prefix_length + longest]
            self._visible[id(mask)] = Visible.of(seen, packing)
        return self._visible[id(mask)]


# Each thread has its own: trainings may run at once in one process.
_reading: ContextVar[_Reading] = ContextVar("prefix that the running forward pass reads")


@contextlib.contextmanager
def active_prefix(prefix: KeyValues, packing: Packing | None = None) -> Iterator[None]:
    """Makes `prefix` the one that the registered attention function puts before the text, or before
    each row of `packing`, in forward passes of this thread.
    """
    before = _reading.set(_Reading(prefix, packing))
    try:
        yield
    finally:
        _reading.reset(before)


Watcher = Callable[[int, Tensor, Tensor, Tensor], None]
"""Gets a layer's number, its queries [B, H·G, S, D] and the text's keys and values [B, H, S, D], as
they meet in attention.
"""

_watcher: ContextVar[Watcher | None] = ContextVar("watcher of attention", default=None)


@contextlib.contextmanager
def attention_watched(watcher: Watcher) -> Iterator[None]:
    """While active, `watcher` sees what meets in every layer that attends to a shared prefix in
    this thread.
    """
    before = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(before)


class SharedPrefixCache(Cache):
    """Tells the model that P positions are cached, and hands new keys and values straight to the
    attention function.
    """

    def __init__(self, *, layers: int, length: int) -> None:
        self.layers: list[Any] = []
        self.layer_class_to_replicate = None
        self.offloading = False
        self._count = layers
        self._length = length

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """The new keys and values as they came."""
        return key_states, value_states

    def get_seq_length(self, *_: Any, **__: Any) -> int:
        """P: text starts at position P."""
        return self._length

    def get_query_offset(self, *_: Any, **__: Any) -> int:
        """P, as seen by the mask functions."""
        return self._length

    def get_mask_sizes(self, query_length: int, *_: Any, **__: Any) -> tuple[int, int]:
        """Keys seen by a query, and where they start: the whole prefix also in layers with a
        sliding window.
        """
        return self._length + query_length, 0

    @property
    def is_sliding(self) -> list[bool]:
        """No layer drops keys; windows are the mask's business."""
        return [False] * self._count

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return True


def shared_prefix_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query [B, H·G, S, D], key and value [B, H, S, D] of the text → [B, S, H·G, D]; the prefix
    comes from `active_prefix`.

    `attention_mask` is True where a query may look, [1 or B, 1, S, P+S]; rows are padded on the
    right, so that all share one.
    """
    del dropout  # the base is frozen and in evaluation mode
    reading, watcher = _reading.get(), _watcher.get()
    if watcher is not None:
        watcher(module.layer_idx, query, key, value)
    B, heads, S, D = query.shape
    packing = reading.packing(query)
    pk, pv = reading.prefix[module.layer_idx]
    visible = reading.visible(attention_mask, packing, pk.shape[1], query.device)
    scale = D**-0.5 if scaling is None else scaling
    softcap, sinks = kwargs.get("softcap"), kwargs.get("s_aux")
    dtype = (
        torch.get_autocast_dtype(query.device.type)
        if torch.is_autocast_enabled(query.device.type)
        else query.dtype
    )
    q, key, value = (_end_to_end(part).to(dtype) for part in (query, key, value))
    pk, pv = pk.to(dtype), pv.to(dtype)
    if softcap is not None or sinks is not None:
        out = shared_prefix.plain(q, key, value, pk, pv, packing, visible, scale, softcap, sinks)
    elif heads * packing.tokens * visible.all.shape[1] > _MAX_STORED_SCORES:
        out = shared_prefix.long(q, key, value, pk, pv, packing, visible, scale)
    else:
        everything = (q, key, value, pk, pv, packing, visible, scale)
        out = cast(Tensor, SharedPrefixAttention.apply(*everything))  # type: ignore[no-untyped-call]
    return out.view(heads, B, S, -1).permute(1, 2, 0, 3), None


def _end_to_end(part: Tensor) -> Tensor:
    """[B, heads, S, D] → [heads, B·S, D]."""
    return part.transpose(0, 1).reshape(part.shape[1], -1, part.shape[3])


ALL_ATTENTION_FUNCTIONS.register(ROUTE, shared_prefix_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(ROUTE, sdpa_mask)
