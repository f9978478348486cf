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


def to_precision(model: ir.Model, precision: str) -> ir.Model:
    """Edits a lean fp32 graph in place: fp32 leaves it, fp16 converts it, int8 and int4 quantise
    its weights.
    """
    if precision == "fp16":
        passes: list[ir.passes.InPlacePass] = [HalfPrecisionPass()]
    elif precision in FORMATS:
        form = FORMATS[precision]
        passes = [QuantiseWeightsPass(form), QuantiseExpertsPass(form)]
    else:
        passes = []
    ir.passes.Sequential(*passes, common.RemoveUnusedNodesPass(), NamePass())(model)
    return model
