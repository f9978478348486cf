"""Attention over a prefix that all rows share and a text of their own: three ways to the same
numbers.

Letters: R rows, N tokens of all rows end to end, S tokens of the longest, H key/value heads, G
query heads per key/value head, P prefix length, D head size. q [H·G, N, D]; key, value [H, N, D];
prefix [H, P, D]; each way gives [H·G, N, Dv].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeprefix.train.packing import Chunk, Packing

_HIDDEN = -1e30  # a score that takes no part; finite, since a row may see nothing of the prefix


class Visible(NamedTuple):
    """What a query may look at, by its place in its row."""

    all: Tensor
    """[S, P+S], True where it may look."""
    prefix: Tensor | None
    """[N, P], added to scores; None where every query sees the whole prefix."""
    text: Tensor
    """[S, S], added to scores."""

    @staticmethod
    def of(mask: Tensor, packing: Packing) -> Visible:
        """From a mask [S, P+S] for the longest row."""
        P = mask.shape[1] - mask.shape[0]
        hidden = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, _HIDDEN)
        sees_all = bool(mask[:, :P].all())
        return Visible(mask, None if sees_all else hidden[packing.places, :P], hidden[:, P:])


class SharedPrefixAttention(torch.autograd.Function):
    """softmax(scale · q·[prefix | keys]) · [prefix values | values] with its own backward.

    Prefix and text have a softmax each, joined by the logarithms of their sums (as blocks of keys
    in Dao et al. 2022, FlashAttention): so the prefix's scores stay one product over the tokens of
    all rows, without padding.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        key: Tensor,
        value: Tensor,
        pk: Tensor,
        pv: Tensor,
        packing: Packing,
        visible: Visible,
        scale: float,
    ) -> Tensor:
        H = key.shape[0]
        q = q * scale
        weights, prefix_sum = _weights(
            torch.bmm(_by_head(q, H), pk.transpose(1, 2)), visible.prefix
        )
        on_prefix = torch.bmm(weights, pv).view(*q.shape[:2], -1)
        prefix_sum = prefix_sum.view(*q.shape[:2], 1)
        parts = [_text_forward(q, key, value, chunk, visible) for chunk in packing.chunks]
        on_text = torch.cat([out for out, _, _ in parts], dim=1)
        text_sum = torch.cat([total for _, total, _ in parts], dim=1)
        # Of prefix and text in all weights, in fp32: behind an attention sink the text's is smaller
        # than a step of bf16 below one.
        share, rest = (torch.sigmoid(sign * (prefix_sum - text_sum)) for sign in (1, -1))
        out = torch.addcmul(on_text.float() * rest, on_prefix.float(), share).to(q.dtype)
        ctx.save_for_backward(
            q, pk, pv, weights, share, rest, out, *(tensor for part in parts for tensor in part[2])
        )
        ctx.packing, ctx.scale = packing, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, pk, pv, weights, share, rest, out, *kept = ctx.saved_tensors
        H = pk.shape[0]
        d_out = gradients[0].to(out.dtype)
        # Softmax's own term: every score's gradient is weight · (d_weight − sum over weights of
        # d_weight).
        mean = (d_out.float() * out.float()).sum(-1, keepdim=True)
        d_prefix, d_text = ((d_out * part).to(out.dtype) for part in (share, rest))
        mean_prefix, mean_text = ((mean * part).to(out.dtype) for part in (share, rest))
        d_prefix, mean_prefix = _by_head(d_prefix, H), _by_head(mean_prefix, H)
        d_pv = torch.bmm(weights.transpose(1, 2), d_prefix)
        d_scores = torch.bmm(d_prefix, pv.transpose(1, 2)).sub_(mean_prefix).mul_(weights)
        d_pk = torch.bmm(d_scores.transpose(1, 2), _by_head(q, H))
        d_q = torch.bmm(d_scores, pk).view(q.shape)
        d_keys, d_values = [], []
        for index, chunk in enumerate(ctx.packing.chunks):
            of_q, d_key, d_value = _text_backward(
                d_text, mean_text, chunk, *kept[4 * index : 4 * index + 4]
            )
            d_q[:, chunk.begin : chunk.end] += of_q
            d_keys.append(d_key)
            d_values.append(d_value)
        return (
            d_q.mul_(ctx.scale),
            torch.cat(d_keys, dim=1),
            torch.cat(d_values, dim=1),
            d_pk,
            d_pv,
            None,
            None,
            None,
        )


def _text_forward(
    q: Tensor, key: Tensor, value: Tensor, chunk: Chunk, visible: Visible
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """A chunk's rows looking at themselves: output [H·G, n, Dv], logarithms of sums [H·G, n, 1],
    what backward needs.
    """
    heads, H, S = q.shape[0], key.shape[0], chunk.longest
    q = _by_row(chunk.padded(q), H)
    key, value = chunk.padded(key), chunk.padded(value)
    scores = torch.matmul(q, key.transpose(2, 3))
    weights, total = _weights(scores.view(*scores.shape[:2], -1, S, S), visible.text[:S, :S])
    weights = weights.view(scores.shape)
    out = torch.matmul(weights, value)
    back = [
        chunk.packed(_by_query_head(part, heads, S))
        for part in (out, total.view(*scores.shape[:3], 1))
    ]
    return back[0], back[1], (q, key, value, weights)


def _text_backward(
    d_out: Tensor,
    mean: Tensor,
    chunk: Chunk,
    q: Tensor,
    key: Tensor,
    value: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The chunk's gradients of (scaled) q, key and value, end to end."""
    heads = d_out.shape[0]
    d_out, mean = (_by_row(chunk.padded(part), key.shape[0]) for part in (d_out, mean))
    d_value = torch.matmul(weights.transpose(2, 3), d_out)
    d_scores = torch.matmul(d_out, value.transpose(2, 3)).sub_(mean).mul_(weights)
    d_key = torch.matmul(d_scores.transpose(2, 3), q)
    d_q = torch.matmul(d_scores, key)
    return (
        chunk.packed(_by_query_head(d_q, heads, chunk.longest)),
        chunk.packed(d_key),
        chunk.packed(d_value),
    )


def _weights(scores: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
    """Softmax over the last dimension in the scores' dtype, and the logarithm of its sum in fp32,
    both of fp32 scores.
    """
    exact = scores.float()
    if hidden is not None:
        heads = exact.view(exact.shape[0], -1, *hidden.shape)  # the queries of all heads in turn
        heads.add_(hidden)
    top = exact.amax(-1, keepdim=True)
    weights = torch.softmax(exact, dim=-1)
    return weights.to(scores.dtype), top - weights.amax(
        -1, keepdim=True
    ).log()  # the largest weight is 1 / sum


def _by_head(part: Tensor, kv_heads: int) -> Tensor:
    """[H·G, N, D] → [H, G·N, D]."""
    return part.reshape(kv_heads, -1, part.shape[-1])


def _by_row(part: Tensor, kv_heads: int) -> Tensor:
    """[H·G, R, S, D] → [H, R, G·S, D]: what one key/value head of a row is asked, together."""
    heads, R, S, D = part.shape
    groups = heads // kv_heads
    return part.view(kv_heads, groups, R, S, D).transpose(1, 2).reshape(kv_heads, R, groups * S, D)


def _by_query_head(part: Tensor, heads: int, longest: int) -> Tensor:
    """The way back: [H, R, G·S, D] → [H·G, R, S, D]."""
    H, R, _, D = part.shape
    return part.view(H, R, heads // H, longest, D).transpose(1, 2).reshape(heads, R, longest, D)


def plain(
    q: Tensor,
    key: Tensor,
    value: Tensor,
    pk: Tensor,
    pv: Tensor,
    packing: Packing,
    visible: Visible,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """By autograd, with soft-capped scores and attention sinks (a learned logit per query head that
    takes mass).
    """
    chunk, heads = packing.whole, q.shape[0]
    q, key, value, pk, pv = _expanded(q, key, value, pk, pv, chunk)
    scores = torch.matmul(q, torch.cat([pk, key], dim=2).transpose(2, 3)).float() * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~visible.all, float("-inf"))
    if sinks is not None:
        sink = sinks.float().view(heads, 1, 1, 1).expand(-1, chunk.rows, chunk.longest, 1)
        scores = torch.cat([scores, sink], dim=-1)
    weights = torch.softmax(scores, dim=-1).to(q.dtype)[..., : visible.all.shape[1]]
    return chunk.packed(torch.matmul(weights, torch.cat([pv, value], dim=2)))


def long(
    q: Tensor,
    key: Tensor,
    value: Tensor,
    pk: Tensor,
    pv: Tensor,
    packing: Packing,
    visible: Visible,
    scale: float,
) -> Tensor:
    """By torch's kernel, which stores no scores: for long texts."""
    chunk = packing.whole
    q, key, value, pk, pv = _expanded(q, key, value, pk, pv, chunk)
    keys, values = torch.cat([pk, key], dim=2), torch.cat([pv, value], dim=2)
    return chunk.packed(
        F.scaled_dot_product_attention(q, keys, values, attn_mask=visible.all, scale=scale)
    )


def _expanded(
    q: Tensor, key: Tensor, value: Tensor, pk: Tensor, pv: Tensor, chunk: Chunk
) -> list[Tensor]:
    """Everything padded and repeated, [H·G, R, …, D]: what the library's operations take."""
    groups = q.shape[0] // key.shape[0]
    text = [chunk.padded(part.repeat_interleave(groups, dim=0)) for part in (key, value)]
    prefix = [
        part.repeat_interleave(groups, dim=0)[:, None].expand(-1, chunk.rows, -1, -1)
        for part in (pk, pv)
    ]
    return [chunk.padded(q), *text, *prefix]
