"""llama.cpp quantises a GGUF file by itself, with its defaults for Q8_0 and Q4_0. Runs in the
environment `llama`.

python quantise_llama.py FP32_FILE FILE int8|int4
"""

from __future__ import annotations

import ctypes
import sys

import llama_cpp as api

TYPES = {"int8": api.LLAMA_FTYPE_MOSTLY_Q8_0, "int4": api.LLAMA_FTYPE_MOSTLY_Q4_0}


def quantise(source: str, target: str, precision: str) -> None:
    """Writes the quantised file."""
    settings = api.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = TYPES[precision], 2
    if api.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(settings)):
        raise RuntimeError(f"llama.cpp did not quantise {source}")


if __name__ == "__main__":
    quantise(*sys.argv[1:])
