"""A lean fp32 graph in the precision that was asked for. benchmarks/precision.py measured the
formats.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from edgeprefix.base.rounding import FORMATS
from edgeprefix.export.passes.experts import QuantiseExpertsPass
from edgeprefix.export.passes.half import HalfPrecisionPass
from edgeprefix.export.passes.names import NamePass
from edgeprefix.export.passes.quantise import QuantiseWeightsPass
from edgeprefix.export.planned import Plan
from edgeprefix.runtime.contracts.manifest import AS_STORED


def to_precision(model: ir.Model, precision: str, plan: Plan | None = None) -> ir.Model:
    """Edits a lean fp32 graph in place: fp32 leaves it, fp16 converts it, int8 and int4 quantise
    its weights, as-stored those of the plan.

    `plan` says how weights are rounded; with int8 and int4, those that it does not name are rounded
    to the nearest step.
    """
    if precision == "fp16":
        passes: list[ir.passes.InPlacePass] = [HalfPrecisionPass()]
    elif precision in FORMATS:
        form = FORMATS[precision]
        passes = [QuantiseWeightsPass(form, plan), QuantiseExpertsPass(form)]
    elif precision == AS_STORED:
        passes = [QuantiseWeightsPass(None, plan)]
    else:
        passes = []
    ir.passes.Sequential(*passes, common.RemoveUnusedNodesPass(), NamePass())(model)
    return model
