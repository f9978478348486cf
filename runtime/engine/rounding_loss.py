"""What a prefix file's precision costs: the base's next-token distributions behind the rounded
prefix, against fp32.

The text they are compared on is the base's own greedy continuation of the fp32 prefix, so nobody
has to bring one.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.contracts.task_pack import TaskPack
from edgeprefix.runtime.engine import Engine


@dataclass(frozen=True, kw_only=True)
class RoundingLoss:
    """Over `tokens` positions: KL divergence in nats, and how often the likeliest token is kept."""

    dtype: str
    tokens: int
    kl_mean: float
    kl_max: float
    top1: float

    def __str__(self) -> str:
        return (
            f"{self.dtype} against fp32 over {self.tokens} tokens: same likeliest token "
            f"{self.top1:.1%}, "
            f"KL mean {self.kl_mean:.1e}, worst {self.kl_max:.1e} nats"
        )


def rounding_loss(engine: Engine, prefix: Prefix, dtype: str, *, tokens: int = 32) -> RoundingLoss:
    """Measures `dtype` for a prefix on an engine of its base.

    The engine must have room for `tokens` behind it, and no task of its name.
    Raises PrefixFileError when a number does not fit the dtype, PromptTooLongError.
    """
    # Its stops and sampling would cut or vary the text
    prefix = dataclasses.replace(prefix, pack=TaskPack())
    rounded = Prefix.from_bytes(prefix.with_dtype(dtype).to_bytes())
    text = engine.tokenizer.encode_piece("\n")[:1] or [0]  # something neutral to go on from
    with _loaded(engine, prefix):
        text += engine.generate(
            text, task=prefix.name, max_new_tokens=tokens - 1, ignore_end=True
        ).tokens
        exact = engine.next_logprobs(text, task=prefix.name)
    with _loaded(engine, rounded):
        return compare_distributions(
            exact, engine.next_logprobs(text, task=prefix.name), dtype=dtype
        )


def compare_distributions(
    exact: npt.NDArray[np.float32], other: npt.NDArray[np.float32], *, dtype: str
) -> RoundingLoss:
    """Both are log-probabilities [S, V]."""
    kl = (np.exp(exact.astype(np.float64)) * (exact.astype(np.float64) - other)).sum(axis=1)
    kl = np.maximum(kl, 0.0)  # equal distributions differ by fp32's rounding, to either side
    return RoundingLoss(
        dtype=dtype,
        tokens=len(exact),
        kl_mean=float(kl.mean()),
        kl_max=float(kl.max()),
        top1=float((exact.argmax(axis=1) == other.argmax(axis=1)).mean()),
    )


@contextlib.contextmanager
def _loaded(engine: Engine, prefix: Prefix) -> Iterator[None]:
    engine.load_prefix(prefix)
    try:
        yield
    finally:
        engine.unload(prefix.name)
