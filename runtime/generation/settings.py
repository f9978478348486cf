"""What callers may pass by name: names and types of GenerationOptions, no more.

Type checkers cannot derive a TypedDict from a dataclass, so `python docs/tables.py` writes it; do
not edit it. Checks, defaults and help stand in contracts/generation_options.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict


class Settings(TypedDict, total=False):
    """The fields of GenerationOptions, each optional."""

    max_new_tokens: int | None
    min_new_tokens: int
    temperature: float | None
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    no_repeat_ngram: int
    logit_bias: Mapping[int, float]
    banned_words: str | Sequence[str]
    forced_words: str | Sequence[str]
    forced_prefix: str
    stop: str | Sequence[str]
    ignore_end: bool
    seed: int | None
    n: int
    beams: int
    length_penalty: float
    early_stopping: bool | Literal["never"]
    logprobs: int | None
    lookup: int
