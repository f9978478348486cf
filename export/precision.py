"""A lean fp32 graph in the precision that was asked for. benchmarks/precision.py measured the formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from edgeprefix.export.blockwise import WeightFormat
from edgeprefix.export.passes.half import HalfPrecisionPass
from edgeprefix.export.passes.names import NamePass
from edgeprefix.export.passes.quantise import QuantiseWeightsPass


@dataclass(frozen=True, kw_only=True)
class QuantisedFormat:
    """Formats of the projections (`body`) and of the vocabulary projection and embedding (`head`)."""

    body: WeightFormat
    head: WeightFormat


FORMATS: Mapping[str, QuantisedFormat] = {
    "int8": QuantisedFormat(body=WeightFormat(bits=8, block=128), head=WeightFormat(bits=8, block=128)),
    "int4": QuantisedFormat(body=WeightFormat(bits=4, block=64, symmetric=False), head=WeightFormat(bits=8, block=64)),
}


def to_precision(model: ir.Model, precision: str) -> ir.Model:
    """Edits a lean fp32 graph in place: fp32 leaves it, fp16 converts it, int8 and int4 quantise its weights."""
    if precision == "fp16":
        passes: list[ir.passes.InPlacePass] = [HalfPrecisionPass()]
    elif precision in FORMATS:
        passes = [QuantiseWeightsPass(FORMATS[precision].body, FORMATS[precision].head)]
    else:
        passes = []
    ir.passes.Sequential(*passes, common.RemoveUnusedNodesPass(), NamePass())(model)
    return model
