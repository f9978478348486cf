"""A prefix as the states of a stateful OpenVINO decoder: one tensor for each of its variables.

optimum-intel exports decoders whose cache is inside the model, in variables that are called after
the input and the output they were made of: `past_key_values.{i}.keypresent.{i}.key`, [B, H, P, D].
The file is a plain safetensors file of those names with B = 1; `request.query_state()` takes them
(see docs/formats.md).
"""

from __future__ import annotations

from pathlib import Path

import safetensors.numpy

from edgeprefix.export.formats.onnx_adapter import DTYPES, cast
from edgeprefix.runtime.contracts.files import write_atomic
from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.errors import ExportError


def write_openvino(prefix: Prefix, out: str | Path, *, dtype: str = "fp32") -> None:
    """Writes `out`, whole or not at all; `dtype` is fp32, or fp16 to save space.

    Raises ExportError for another dtype or for numbers that it does not hold, OutputError.
    """
    if dtype not in DTYPES:
        raise ExportError(f"OpenVINO states are written as fp32 or fp16, not {dtype}")
    tensors = {
        variable(index, kind): cast(array[None], dtype, f"layer {index} {kind}")
        for index, layer in enumerate(prefix.layers)
        for kind, array in zip(("key", "value"), layer, strict=True)
    }
    metadata = {"format": "np", "edgeprefix.task": prefix.name, "edgeprefix.base": str(prefix.base)}
    write_atomic(out, safetensors.numpy.save(tensors, metadata=metadata))


def variable(layer: int, kind: str) -> str:
    """Name of a state: OpenVINO's make_stateful joins the names of the input and the output."""
    return f"past_key_values.{layer}.{kind}present.{layer}.{kind}"
