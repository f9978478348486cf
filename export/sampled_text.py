"""Text that a base makes itself, for judging a bundle when no text is given.

Drawn at temperature 1 it is the text that the base knows best, in the language and the manner that
it has; a text of ours would be one of many that it may never have seen. The loss of other weights
over such text is, in expectation, their loss over torch plus the divergence between the two, so
that one number bounds both. Texts are drawn side by side, since what a step costs is to read the
weights, not to compute with them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import DynamicCache

from edgeprefix.base import Base

Ids = npt.NDArray[np.int64]

_TEXTS, _LENGTH = 12, 96  # tokens


def sampled_texts(
    base: Base, *, seed: int = 0, advance: Callable[[float], None] | None = None
) -> tuple[Ids, ...]:
    """Some texts [S] of a thousand tokens and more together, each behind the token that begins a
    text.

    The same for the same base and seed (but for the order of sums, which threads may change). No
    text ends before its length: the base's end tokens are not drawn. `advance` is told how much is
    done, from 0 to 1.
    """
    generator = torch.Generator().manual_seed(seed)
    begin = beginning(base)
    if begin is None:
        begin = int(torch.randint(int(base.config.vocab_size), (1,), generator=generator))

    def draw(_: Tensor, logits: Tensor) -> Tensor:
        logits[:, list(base.end_ids)] = -torch.inf
        return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)

    first = torch.full((_TEXTS, 1), begin)
    length = min(_LENGTH, base.max_positions)
    return tuple(drawn_texts(base, first, draw, length=length, advance=advance).numpy())


Draw = Callable[[Tensor, Tensor], Tensor]
"""Chooses each text's next token [B, 1], given its last one [B, 1] and logits [B, V] in fp32."""


@torch.no_grad()
def drawn_texts(
    base: Base,
    first: Tensor,
    draw: Draw,
    *,
    length: int,
    advance: Callable[[float], None] | None = None,
) -> Tensor:
    """Texts [B, length] that begin with the tokens `first` [B, 1], all drawn side by side."""
    tokens, cache = [first], DynamicCache()  # without the config: masks see to windows
    for position in range(1, length):
        out = base.model(input_ids=tokens[-1], past_key_values=cache, use_cache=True)
        tokens.append(draw(tokens[-1], out.logits[:, -1].float()))
        if advance is not None:
            advance(position / (length - 1))
    return torch.cat(tokens, dim=1)


def beginning(base: Base) -> int | None:
    """The begin token; of a base without one what ends a text, as texts follow each other in what
    it was trained on; None where there is neither.
    """
    return base.begin_id if base.begin_id is not None else next(iter(base.end_ids), None)
