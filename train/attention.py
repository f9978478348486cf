"""Attention over a prefix that all rows of a batch share.

transformers would copy the prefix into every row's cache and hand the lot to one kernel. Here the prefix stays [H, P, D]:
its scores are one large matrix product for the whole batch, and its gradient comes out summed already. On a CPU a training
step takes about 0.6 of the time of `scaled_dot_product_attention`, whose bf16 backward is slow there (docs/training.md).

Registered with transformers under the name ROUTE, like any attention implementation; no model code is touched.
Letters: B rows, S text tokens, H key/value heads, G query heads per key/value head, P prefix length, D head size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import Cache
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

ROUTE = "edgeprefix_shared_prefix"

KeyValues = Sequence[tuple[Tensor, Tensor]]
"""Per layer: keys and values of the prefix, each [H, P, D]."""

# Above this many scores (B·H·G·S·(P+S)) the score matrix is not kept; the library's kernel, which never stores it, is used.
_MAX_STORED_SCORES = 1 << 26

# The prefix of the forward pass that runs now. Attention functions get no argument of ours from every model, hence a stack.
_active: list[KeyValues] = []


@contextlib.contextmanager
def active_prefix(prefix: KeyValues) -> Iterator[None]:
    """Makes `prefix` the one that the registered attention function puts before the text."""
    _active.append(prefix)
    try:
        yield
    finally:
        _active.pop()


QueryWatcher = Callable[[int, Tensor], None]
"""Gets a layer's number and its queries [B, H·G, S, D], as they meet the keys."""

_watchers: list[QueryWatcher] = []


@contextlib.contextmanager
def queries_watched(watcher: QueryWatcher) -> Iterator[None]:
    """While active, `watcher` sees the queries of every layer that attends to a shared prefix."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.pop()


class SharedPrefixCache(Cache):
    """Tells the model that P positions are cached, and hands new keys and values straight to the attention function."""

    def __init__(self, *, layers: int, length: int) -> None:
        self.layers: list[Any] = []
        self.layer_class_to_replicate = None
        self.offloading = False
        self._count = layers
        self._length = length

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The new keys and values as they came."""
        return key_states, value_states

    def get_seq_length(self, *_: Any, **__: Any) -> int:
        """P: text starts at position P."""
        return self._length

    def get_query_offset(self, *_: Any, **__: Any) -> int:
        """P, as seen by the mask functions."""
        return self._length

    def get_mask_sizes(self, query_length: int, *_: Any, **__: Any) -> tuple[int, int]:
        """Keys seen by a query, and where they start: the whole prefix also in layers with a sliding window."""
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
    """query [B, H·G, S, D], key and value [B, H, S, D] of the text → [B, S, H·G, D]; the prefix comes from `active_prefix`.

    `attention_mask` is True where a query may look, [1 or B, 1, S, P+S]; rows are padded on the right, so that all share one.
    """
    del dropout  # the base is frozen and in evaluation mode
    prefix_key, prefix_value = _active[-1][module.layer_idx]
    for watcher in _watchers:
        watcher(module.layer_idx, query)
    B, heads, S, D = query.shape
    H = key.shape[1]
    dtype = torch.get_autocast_dtype(query.device.type) if torch.is_autocast_enabled(query.device.type) else query.dtype
    query = query.to(dtype).reshape(B, H, heads // H * S, D)
    key, value, prefix_key, prefix_value = (part.to(dtype) for part in (key, value, prefix_key, prefix_value))
    mask = _mask(attention_mask, S, prefix_key.shape[1], query.device)
    scale = D**-0.5 if scaling is None else scaling
    softcap, sinks = kwargs.get("softcap"), kwargs.get("s_aux")
    if softcap is not None or sinks is not None:
        out = _plain(query, key, value, prefix_key, prefix_value, mask, scale, softcap, sinks)
    elif B * heads * S * mask.shape[-1] > _MAX_STORED_SCORES:
        out = _long(query, key, value, prefix_key, prefix_value, mask, scale)
    else:
        out = cast(Tensor, _SharedPrefix.apply(query, key, value, prefix_key, prefix_value, mask, scale))  # type: ignore[no-untyped-call]
    return out.reshape(B, heads, S, -1).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(ROUTE, shared_prefix_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(ROUTE, sdpa_mask)


def _mask(mask: Tensor | None, length: int, prefix: int, device: torch.device) -> Tensor:
    """True where a query may look, [S, P+S]."""
    if mask is not None:
        return mask[0, 0, :, : prefix + length]
    return torch.ones(length, prefix + length, dtype=torch.bool, device=device).tril(prefix)


class _SharedPrefix(torch.autograd.Function):
    """softmax(scale · q·[prefix | keys]) · [prefix values | values] with its own backward.

    q [B, H, G·S, D]; key, value [B, H, S, D]; prefix [H, P, D]; mask [S, P+S]; gives [B, H, G·S, Dv]. Scores are fp32.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, key: Tensor, value: Tensor, pk: Tensor, pv: Tensor, mask: Tensor, scale: float
    ) -> Tensor:
        B, H, rows, D = q.shape
        S, P = key.shape[2], pk.shape[1]
        across = q.transpose(0, 1).reshape(H, B * rows, D)  # all rows of the batch, per head
        scores = torch.empty(B, H, rows, P + S, dtype=torch.float32, device=q.device)
        scores[..., :P] = torch.bmm(across, pk.transpose(1, 2)).view(H, B, rows, P).transpose(0, 1)
        scores[..., P:] = torch.matmul(q, key.transpose(2, 3))
        scores.mul_(scale)
        scores.view(B, H, rows // S, S, P + S).masked_fill_(~mask, float("-inf"))
        weights = torch.softmax(scores, dim=-1).to(q.dtype)
        on_prefix = weights[..., :P].transpose(0, 1).reshape(H, B * rows, P)
        on_text = weights[..., P:]
        out = torch.bmm(on_prefix, pv).view(H, B, rows, -1).transpose(0, 1) + torch.matmul(on_text, value)
        ctx.save_for_backward(across, key, value, pk, pv, on_prefix, on_text, out)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        across, key, value, pk, pv, on_prefix, on_text, out = ctx.saved_tensors
        B, H, rows, _ = out.shape
        D = pk.shape[2]
        d_out = gradients[0].to(out.dtype)
        q = across.view(H, B, rows, D).transpose(0, 1)
        d_across = d_out.transpose(0, 1).reshape(H, B * rows, -1)
        # Softmax's own term: every score's gradient is weight · (d_weight − sum over weights of d_weight).
        mean = (d_out.float() * out.float()).sum(-1, keepdim=True).to(out.dtype)
        mean_across = mean.transpose(0, 1).reshape(H, B * rows, 1)
        d_pv = torch.bmm(on_prefix.transpose(1, 2), d_across)
        d_value = torch.matmul(on_text.transpose(2, 3), d_out)
        d_prefix_scores = torch.bmm(d_across, pv.transpose(1, 2)).sub_(mean_across).mul_(on_prefix)
        d_text_scores = torch.matmul(d_out, value.transpose(2, 3)).sub_(mean).mul_(on_text)
        d_pk = torch.bmm(d_prefix_scores.transpose(1, 2), across).mul_(ctx.scale)
        d_key = torch.matmul(d_text_scores.transpose(2, 3), q).mul_(ctx.scale)
        d_q = torch.bmm(d_prefix_scores, pk).view(H, B, rows, D).transpose(0, 1) + torch.matmul(d_text_scores, key)
        return d_q.mul_(ctx.scale), d_key, d_value, d_pk, d_pv, None, None


def _plain(
    q: Tensor, key: Tensor, value: Tensor, pk: Tensor, pv: Tensor, mask: Tensor, scale: float,
    softcap: float | None, sinks: Tensor | None,
) -> Tensor:  # fmt: skip
    """The same by autograd, with soft-capped scores and attention sinks (a learned logit per query head that takes mass)."""
    B, H, rows, _ = q.shape
    S = key.shape[2]
    scores = (
        torch.cat([torch.matmul(q, pk.transpose(1, 2)), torch.matmul(q, key.transpose(2, 3))], dim=-1).float() * scale
    )
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.view(B, H, rows // S, S, -1).masked_fill(~mask, float("-inf")).view(B, H, rows, -1)
    if sinks is not None:
        sink = sinks.float().view(1, H, rows // S, 1, 1).expand(B, -1, -1, S, 1).reshape(B, H, rows, 1)
        scores = torch.cat([scores, sink], dim=-1)
    weights = torch.softmax(scores, dim=-1).to(q.dtype)
    P = pk.shape[1]
    return torch.matmul(weights[..., :P], pv) + torch.matmul(weights[..., P : P + S], value)


def _long(q: Tensor, key: Tensor, value: Tensor, pk: Tensor, pv: Tensor, mask: Tensor, scale: float) -> Tensor:
    """The same by torch's kernel, which stores no scores: for long texts."""
    B, H, rows, D = q.shape
    S = key.shape[2]
    keys = torch.cat([pk.expand(B, -1, -1, -1), key], dim=2)
    values = torch.cat([pv.expand(B, -1, -1, -1), value], dim=2)
    groups = rows // S
    out = F.scaled_dot_product_attention(
        q.view(B, H * groups, S, D), keys, values, attn_mask=mask, scale=scale, enable_gqa=groups > 1
    )
    return out.reshape(B, H, rows, -1)
