"""ONNX Runtime as C#, Java and C++ call it: its C API, through ctypes, with a LoRA adapter active.

The API is a table of functions that only grows at its end, so a function's place in it is for ever.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

_PLACES = {
    "GetErrorMessage": 2,
    "CreateEnv": 3,
    "CreateSession": 7,
    "Run": 9,
    "CreateSessionOptions": 10,
    "CreateRunOptions": 39,
    "CreateTensorWithDataAsOrtValue": 49,
    "GetTensorMutableData": 51,
    "GetDimensionsCount": 61,
    "GetDimensions": 62,
    "GetTensorTypeAndShape": 65,
    "CreateCpuMemoryInfo": 69,
    "CreateLoraAdapter": 280,
    "RunOptionsAddActiveLoraAdapter": 283,
}
_API_VERSION = 20  # the first with adapters
_INT64, _ARENA, _DEFAULT_MEMORY, _WARNING = 7, 1, 0, 2


def library() -> Path | None:
    """The wheel's shared library, None where the wheel has none beside its Python module."""
    found = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))
    return found[0] if found else None


class NativeSession:
    """One session on the CPU; what it allocates lives as long as the test's process."""

    def __init__(self, model: Path) -> None:
        path = library()
        assert path is not None
        self._library = ctypes.CDLL(str(path))
        self._library.OrtGetApiBase.restype = ctypes.POINTER(ctypes.c_void_p)
        get_api = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)(
            self._library.OrtGetApiBase()[0]
        )
        self._table = ctypes.cast(get_api(_API_VERSION), ctypes.POINTER(ctypes.c_void_p))
        environment, options = ctypes.c_void_p(), ctypes.c_void_p()
        self._session, self._memory = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("CreateEnv", ctypes.c_int(_WARNING), b"test", ctypes.byref(environment))
        self._call("CreateSessionOptions", ctypes.byref(options))
        self._call(
            "CreateSession", environment, str(model).encode(), options, ctypes.byref(self._session)
        )
        self._call(
            "CreateCpuMemoryInfo",
            ctypes.c_int(_ARENA),
            ctypes.c_int(_DEFAULT_MEMORY),
            ctypes.byref(self._memory),
        )

    def run(self, inputs: dict[str, np.ndarray], output: str, adapter: Path) -> np.ndarray:
        """One float output of a run over int64 inputs, with the adapter's tensors as the other
        inputs.
        """
        options, loaded = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("CreateRunOptions", ctypes.byref(options))
        self._call("CreateLoraAdapter", str(adapter).encode(), None, ctypes.byref(loaded))
        self._call("RunOptionsAddActiveLoraAdapter", options, loaded)
        values = [self._tensor(array) for array in inputs.values()]
        result = ctypes.c_void_p()
        self._call(
            "Run",
            self._session,
            options,
            _names(list(inputs)),
            (ctypes.c_void_p * len(values))(*values),
            ctypes.c_size_t(len(values)),
            _names([output]),
            ctypes.c_size_t(1),
            ctypes.byref(result),
        )
        return self._array(result)

    def _tensor(self, array: np.ndarray) -> Any:
        value, shape = ctypes.c_void_p(), (ctypes.c_int64 * array.ndim)(*array.shape)
        self._call(
            "CreateTensorWithDataAsOrtValue",
            self._memory,
            ctypes.c_void_p(array.ctypes.data),
            ctypes.c_size_t(array.nbytes),
            shape,
            ctypes.c_size_t(array.ndim),
            ctypes.c_int(_INT64),
            ctypes.byref(value),
        )
        return value

    def _array(self, value: Any) -> np.ndarray:
        facts, count, data = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.POINTER(ctypes.c_float)()
        self._call("GetTensorTypeAndShape", value, ctypes.byref(facts))
        self._call("GetDimensionsCount", facts, ctypes.byref(count))
        shape = (ctypes.c_int64 * count.value)()
        self._call("GetDimensions", facts, shape, count)
        self._call("GetTensorMutableData", value, ctypes.byref(data))
        return np.ctypeslib.as_array(data, tuple(shape)).copy()

    def _call(self, name: str, *arguments: Any) -> None:
        function = ctypes.CFUNCTYPE(ctypes.c_void_p)(self._table[_PLACES[name]])
        function.argtypes = None
        status = function(*arguments)
        if status:
            message = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)(
                self._table[_PLACES["GetErrorMessage"]]
            )
            raise RuntimeError(f"{name}: {message(status).decode()}")


def _names(names: Sequence[str]) -> Any:
    return (ctypes.c_char_p * len(names))(*(name.encode() for name in names))
