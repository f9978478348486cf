"""ONNX Runtime with its telemetry off: every module takes it from here, so that the variable is set
before the first import.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when the library is loaded

import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as MissingKernelError

__all__ = ["MissingKernelError", "ort"]
