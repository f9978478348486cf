"""Optimum's own int8: dynamic quantisation for AVX-512 VNNI. Runs in the environment `optimum`.

python quantise_optimum.py FP32_FOLDER FOLDER
"""

from __future__ import annotations

import sys

from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig


def quantise(source: str, folder: str) -> None:
    """Writes the quantised graph and the files beside it."""
    quantizer = ORTQuantizer.from_pretrained(source, file_name="model.onnx")
    quantizer.quantize(
        save_dir=folder,
        quantization_config=AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=False),
    )


if __name__ == "__main__":
    quantise(*sys.argv[1:])
