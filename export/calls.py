"""What the exporter knows of one attention call. B batch, S new tokens, H key/value heads, D head
size.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from edgeprefix.runtime.errors import ExportError


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionCall:
    """One layer's attention over new tokens. `query` is [B, heads, S, D], `key` and `value` are [B,
    H, S, D].

    Raises ExportError when keys and values differ in size, which the attention node cannot hold.
    """

    layer: int
    """Index of the layer's entry in transformers' cache."""
    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    window: int | None = None
    """Tokens that a query sees, its own included; None for all."""
    softcap: float | None = None
    sink: Tensor | None = None
    """[heads]: a logit of each head that takes part in the softmax and has no value."""
    shared: bool = False
    """Whether keys and values are those of an earlier layer, which has put them into the cache
    already.
    """
    bias: Tensor | None = None
    """[heads, positions]: added to the scores by the key's position (ALiBi)."""

    def __post_init__(self) -> None:
        if self.value.shape[-1] != self.key.shape[-1]:
            raise ExportError(
                f"its keys have size {self.key.shape[-1]} and its values {self.value.shape[-1]}; "
                "the attention node needs one head size for both"
            )
