"""How many positions a base can address: prefix, text and new tokens together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

ALIBI_POSITIONS = 8192  # linear biases have no limit of their own; their table needs one


def max_positions(config: Any) -> int:
    """The limit that the configuration of a text model states; that of the table of biases when it
    states none.
    """
    limits = (getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len"))
    stated = int(next((limit for limit in limits if limit), ALIBI_POSITIONS))
    return min([stated, *_other_limits(config)])


def _other_limits(config: Any) -> Iterator[int]:
    """Lengths up to which a base computes as the graph does: beyond them Llama 4 cuts its attention
    into chunks and cools it.
    """
    chunk, floor = (getattr(config, name, None) for name in ("attention_chunk_size", "floor_scale"))
    if chunk:
        yield int(chunk)
    if floor and getattr(config, "attn_temperature_tuning", False):
        yield int(floor) - 1
