"""Which of transformers' implementations of attention a base is loaded with."""

from __future__ import annotations


def reference_attention(model_type: str) -> str:
    """The implementation of attention in transformers that a graph is compared with.

    Eager is the plainest, but for Falcon, where it adds linear biases twice (transformers 5.23).
    """
    return "sdpa" if model_type == "falcon" else "eager"
