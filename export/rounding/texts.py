"""The texts that rounding is fitted to: the user's rows, and what the base itself writes.

A base's own texts are what it knows: sampled token by token at temperature 1 from its begin token
on, they have the inputs of its matrices in the proportions in which it meets them. No text has to
be found, shipped, or asked for. The user's rows are better where there are enough of them: they are
what the bundle is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from edgeprefix.base import Base
from edgeprefix.export.sampled_text import beginning, drawn_texts

_LENGTH = 256  # tokens of a text
_OWN, _GIVEN = 24, 96  # texts at most, of the base's own and of given ones: these cost no drawing
_HELD_OUT = 4  # at least

Done = Callable[[float], None]
"""Told how much is done, from 0 to 1."""


def of_rows(base: Base, texts: Iterable[str], *, length: int, limit: int) -> Tensor:
    """Texts laid end to end, each behind the begin token, in at most `limit` rows [n, length].

    What does not fill a row is left out: n may be 0.
    """
    found: list[int] = []
    opening = [] if base.begin_id is None else [base.begin_id]
    for text in texts:
        if base.tokenizer is None or len(found) >= limit * length:
            break
        found += opening + base.tokenizer.encode(text, add_special_tokens=False).ids
    count = min(limit, len(found) // length)
    return torch.tensor(found[: count * length], dtype=torch.int64).view(count, length)


def sampled(base: Base, *, count: int, length: int, seed: int, done: Done) -> Tensor:
    """Texts that the base writes, [count, length]: the same for the same seed.

    Where a text ends another begins. A base without a begin token starts from its end token, one
    without either from any token.
    """
    generator = torch.Generator().manual_seed(seed)
    vocabulary = int(base.config.vocab_size)
    begin = beginning(base)
    first = (
        torch.randint(vocabulary, (count, 1), generator=generator)
        if begin is None
        else torch.full((count, 1), begin)
    )
    ends = torch.tensor([end for end in base.end_ids if end != begin], dtype=torch.int64)

    def draw(last: Tensor, logits: Tensor) -> Tensor:
        return torch.where(torch.isin(last, ends), first, _sample(logits, generator))

    return drawn_texts(base, first, draw, length=length, advance=done)


def _sample(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One token of each row [B, V] → [B, 1], temperature 1: a uniform number's place in the running
    sum of probabilities, which needs no random number for every token of the vocabulary.
    """
    running = (logits - logits.amax(-1, keepdim=True)).exp().cumsum(-1)
    drawn = torch.rand(len(logits), 1, generator=generator) * running[:, -1:]
    return torch.searchsorted(running, drawn).clamp(max=logits.shape[1] - 1)


def calibration_texts(
    base: Base, given: Iterable[str], *, seed: int = 0, done: Done
) -> tuple[Tensor, Tensor]:
    """What rounding is fitted to, [n, S], and what it is judged by, [m, S]: the given texts as far
    as they go, and what the base itself writes.
    """
    length = min(_LENGTH, base.max_positions)
    rows = of_rows(base, given, length=length, limit=_GIVEN)
    missing = _OWN - len(rows)
    if missing > 0:
        own = sampled(base, count=missing, length=length, seed=seed, done=done)
        rows = torch.cat([rows, own])
    # every some row is held out, of the given ones as of the others
    held_out = torch.arange(len(rows)) % (_OWN // _HELD_OUT) == 0
    return rows[~held_out], rows[held_out]
