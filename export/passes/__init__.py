"""From torch's graph to the lean one: the passes, in their order. Each file holds one of them or a small group.

A pass edits the graph in place, says what it needs (`requires`) and what holds afterwards (`ensures`).
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from edgeprefix.export.passes.activations import FuseActivationPass
from edgeprefix.export.passes.attention import PackQkvPass
from edgeprefix.export.passes.linear import CanonicalLinearPass, EliminateLayoutPass, MergeSiblingsPass
from edgeprefix.export.passes.norms import FuseNormPass, FuseSkipPass

_SMALL_BYTES = 4096  # constants below this are compared and merged


def make_lean(model: ir.Model) -> ir.Model:
    """Runs all passes on a traced decoder, in place, and gives it back."""
    tidy = common.RemoveUnusedNodesPass()
    passes = ir.passes.Sequential(
        common.CommonSubexpressionEliminationPass(),
        CanonicalLinearPass(),
        tidy,
        EliminateLayoutPass(),
        tidy,
        PackQkvPass(),
        tidy,
        MergeSiblingsPass(),
        FuseNormPass(),
        tidy,
        FuseActivationPass(),
        tidy,
        FuseSkipPass(),
        tidy,
        common.DeduplicateHashedInitializersPass(size_limit=_SMALL_BYTES),
        common.ClearMetadataAndDocStringPass(),
        common.TopologicalSortPass(),
    )
    passes(model)
    model.opset_imports.setdefault("com.microsoft", 1)
    return model


__all__ = [
    "CanonicalLinearPass",
    "EliminateLayoutPass",
    "FuseActivationPass",
    "FuseNormPass",
    "FuseSkipPass",
    "MergeSiblingsPass",
    "PackQkvPass",
    "make_lean",
]
