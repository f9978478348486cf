"""From torch's graph to the lean one: the passes, in their order. Each file holds one of them or a
small group.

A pass edits the graph in place, says what it needs (`requires`) and what holds afterwards
(`ensures`).
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir
from onnx_ir.passes import common

from edgeprefix.export.passes.activations import FuseActivationPass
from edgeprefix.export.passes.attention import PackQkvPass
from edgeprefix.export.passes.linear import (
    CanonicalLinearPass,
    EliminateLayoutPass,
    MergeSiblingsPass,
)
from edgeprefix.export.passes.norms import FuseNormPass, FuseSkipPass

_SMALL_BYTES = 4096  # constants below this are compared and merged


PASSES: tuple[type[ir.passes.InPlacePass], ...] = (
    CanonicalLinearPass,
    EliminateLayoutPass,
    PackQkvPass,
    MergeSiblingsPass,
    FuseNormPass,
    FuseActivationPass,
    FuseSkipPass,
)
"""In their order; each works without the ones after it, and benchmarks/graph.py measures what each
is worth.
"""


def make_lean(
    model: ir.Model, *, without: Collection[type[ir.passes.InPlacePass]] = ()
) -> ir.Model:
    """Runs the passes on a traced decoder, in place, and gives it back. `without` leaves some out,
    to measure them.
    """
    steps: list[ir.passes.InPlacePass] = [common.CommonSubexpressionEliminationPass()]
    for kind in PASSES:
        if kind not in without:
            steps += [kind(), common.RemoveUnusedNodesPass()]
    steps += [
        common.DeduplicateHashedInitializersPass(size_limit=_SMALL_BYTES),
        common.ClearMetadataAndDocStringPass(),
        common.TopologicalSortPass(),
    ]
    ir.passes.Sequential(*steps)(model)
    model.opset_imports.setdefault("com.microsoft", 1)
    return model


__all__ = [
    "PASSES",
    "CanonicalLinearPass",
    "EliminateLayoutPass",
    "FuseActivationPass",
    "FuseNormPass",
    "FuseSkipPass",
    "MergeSiblingsPass",
    "PackQkvPass",
    "make_lean",
]
