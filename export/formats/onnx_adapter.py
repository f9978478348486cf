"""A prefix as ONNX Runtime's own adapter file, for decoders that take their past as inputs.

Such a decoder (Optimum, transformers.js, onnxruntime-genai's builder) has inputs
`past_key_values.{i}.key` and `.value`, [B, H, P, D]. An adapter is a set of named tensors that a
run uses as inputs, so a prefix activated by `RunOptions.add_active_adapter` is the past of the
first run: C#, Java, C++ and Python swap prefixes with an API that they already have. B is 1.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort

from edgeprefix.runtime.contracts.files import write_atomic
from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.errors import ExportError

DTYPES = {"fp32": np.float32, "fp16": np.float16}
"""What the past of a decoder graph may be; the adapter's must be the same."""

# Of adapter and model: numbers for their owner, which ONNX Runtime keeps and does not compare
_VERSION = 1


def write_onnx_adapter(prefix: Prefix, out: str | Path, *, dtype: str = "fp32") -> None:
    """Writes `out` (by custom NAME.onnx_adapter), whole or not at all. `dtype` is that of the
    graph's past inputs.

    Raises ExportError for another dtype or for numbers that it does not hold, OutputError.
    """
    if dtype not in DTYPES:
        raise ExportError(
            f"an ONNX adapter has the dtype of the graph's inputs, fp32 or fp16, not {dtype}"
        )
    tensors = {
        f"past_key_values.{index}.{kind}": cast(array[None], dtype, f"layer {index} {kind}")
        for index, layer in enumerate(prefix.layers)
        for kind, array in zip(("key", "value"), layer, strict=True)
    }
    adapter = ort.AdapterFormat()
    adapter.set_adapter_version(_VERSION)
    adapter.set_model_version(_VERSION)
    adapter.set_parameters(
        {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in tensors.items()}
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter"
        # `tensors` must live until here: the values are views of them
        adapter.export_adapter(str(path))
        write_atomic(out, path.read_bytes())


def cast(array: np.ndarray, dtype: str, what: str) -> np.ndarray:
    """The array in fp32 or fp16, contiguous. Raises ExportError when a number does not fit."""
    largest = float(np.abs(array).max())
    if dtype == "fp16" and largest > float(np.finfo(np.float16).max):
        raise ExportError(f"{what} reaches {largest:.0f}, more than fp16 holds; write it as fp32")
    return np.ascontiguousarray(array, DTYPES[dtype])
