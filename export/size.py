"""What is wanted of a bundle whose weights are fitted to text, and what a wanted size leaves for
the matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgeprefix.base import Base
from edgeprefix.base.rounded_weights import Role, rounded_weights
from edgeprefix.base.rounding import FORMATS
from edgeprefix.export.decoder_layers import decoder_layers
from edgeprefix.export.precision import to_precision
from edgeprefix.export.rounding.pack import stored_bytes
from edgeprefix.export.rounding.plan import Goal
from edgeprefix.export.rounding.siblings import rows_of
from edgeprefix.export.weights import page_aligned_bytes
from edgeprefix.runtime.errors import ExportError

_NODE_BYTES = 1024  # of the graph's file, at most, with the names of a node's weights
_MANIFEST_BYTES = 1 << 16  # besides the chat template


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a bundle is to keep to; with neither, a mix that pays on most bases."""

    size_bytes: int | None = None
    """Largest size of the whole bundle: graph, weights, tokenizer, manifest."""
    quality: float | None = None
    """Largest perplexity, as a multiple of the base's: 1.03."""

    def __post_init__(self) -> None:
        if self.size_bytes is not None and self.quality is not None:
            raise ExportError("size and quality were both given; choose the one that is to decide")
        if self.size_bytes is not None and self.size_bytes <= 0:
            raise ExportError(f"size {self.size_bytes} is no size; give bytes above 0")
        if self.quality is not None and not self.quality > 1:
            raise ExportError(
                f"quality {self.quality} is not above 1: it is the bundle's perplexity as a "
                "multiple of the base's, 1.03 say"
            )


def goal_of(wanted: Wanted, base: Base, graph: ir.Model) -> Goal:
    """The goal for the matrices of a base whose lean graph in fp32 is `graph`.

    Raises ExportError when a size leaves nothing for them.
    """
    if wanted.size_bytes is None:
        return Goal(quality=wanted.quality)
    rest = _bytes_of_the_rest(base, graph)
    if wanted.size_bytes <= rest:
        raise ExportError(
            f"a bundle of {wanted.size_bytes / 1e6:,.1f} MB cannot be had: embedding, tokenizer "
            f"and all that is not rounded to 4 bits take {rest / 1e6:,.1f} MB; ask for more"
        )
    return Goal(body_bytes=wanted.size_bytes - rest)


def _bytes_of_the_rest(base: Base, graph: ir.Model) -> int:
    """Of a bundle without the matrices of its layers, rounded up."""
    whole = to_precision(graph.clone(), "int4")
    layers = set(decoder_layers(base.model).modules())
    matrices = 0
    for weight in rounded_weights(base.model, FORMATS["int4"]):
        if weight.role is Role.PROJECTION and weight.module in layers:
            N, K = rows_of(weight.module).shape
            matrices += stored_bytes(weight.format, N, K)
    tokenizer = 0 if base.tokenizer is None else len(base.tokenizer.to_str().encode())
    template = 0 if base.chat_template is None else len(base.chat_template.encode())
    nodes = _NODE_BYTES * sum(1 for _ in whole.graph)
    weights = page_aligned_bytes(whole) - matrices
    return weights + nodes + tokenizer + template + _MANIFEST_BYTES
