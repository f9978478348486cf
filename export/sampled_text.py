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
    length = min(_LENGTH, base.max_positions)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.full((_TEXTS, 1), _beginning(base, generator))  # [B, 1], then [B, S]
    cache = DynamicCache()
    with torch.no_grad():
        for done in range(1, length):
            out = base.model(input_ids=drawn[:, -1:], past_key_values=cache, use_cache=True)
            drawn = torch.cat([drawn, _draw(base, out.logits[:, -1], generator)], dim=1)
            if advance is not None:
                advance(done / (length - 1))
    return tuple(drawn.numpy())


def _beginning(base: Base, generator: torch.Generator) -> int:
    """The begin token; of a base without one what ends a text, as texts follow each other in what
    it was trained on, or just any token.
    """
    if base.begin_id is not None:
        return base.begin_id
    if base.end_ids:
        return base.end_ids[0]
    return int(torch.randint(int(base.config.vocab_size), (1,), generator=generator))


def _draw(base: Base, logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The next token of each text: logits [B, V] → ids [B, 1]."""
    logits = logits.float()
    logits[:, list(base.end_ids)] = -torch.inf
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)
