"""Copies strips of memory on a device, with nothing but ONNX Runtime: one graph of Identity nodes,
bound by address.

ONNX Runtime has no call to copy PART of a tensor that lies on a device. But an Identity node whose
input and output are bound to addresses copies from one to the other where the provider runs. So a
slot of the cache, which is many equal strips (one for each layer, key or value, and head), is
copied in one run without crossing the bus.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from edgeprefix.runtime.decoding.quiet_ort import ort
from edgeprefix.runtime.decoding.session import Provider

_ELEMENT_TYPES = {"float32": 1, "float16": 10}  # onnx.TensorProto.DataType
_OPSET, _IR_VERSION = 17, 8


class Place(NamedTuple):
    """Where strips lie: a device ("cpu", "cuda") and their addresses."""

    device: str
    addresses: Sequence[int]


class StripCopier:
    """Copies `count` strips at once; every strip of a run has the same number of elements."""

    def __init__(self, count: int, dtype: np.dtype[Any], providers: Sequence[Provider]) -> None:
        self._count, self._dtype = count, dtype
        options = ort.SessionOptions()
        # Else the Identities vanish
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(
            identity_graph(count, dtype), options, providers=list(providers)
        )

    def copy(self, source: Place, target: Place, elements: int) -> None:
        """Copies strips of `elements` numbers to another place, and waits until they are there."""
        binding = self._session.io_binding()
        kind, shape = self._dtype.type, (elements,)
        for index in range(self._count):
            binding.bind_input(f"i{index}", source.device, 0, kind, shape, source.addresses[index])
            binding.bind_output(f"o{index}", target.device, 0, kind, shape, target.addresses[index])
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()


def identity_graph(count: int, dtype: np.dtype[Any]) -> bytes:
    """An ONNX model of `count` Identity nodes over vectors, without the onnx package."""
    kind = _ELEMENT_TYPES[dtype.name]
    nodes = [
        _field(1, _field(1, f"i{n}") + _field(2, f"o{n}") + _field(4, "Identity"))
        for n in range(count)
    ]
    values = [
        _field(number, _field(1, f"{letter}{n}") + _field(2, _vector_type(kind)))
        for number, letter in ((11, "i"), (12, "o"))
        for n in range(count)
    ]
    graph = b"".join(nodes) + _field(2, "strips") + b"".join(values)
    return _number(1, _IR_VERSION) + _field(7, graph) + _field(8, _number(2, _OPSET))


def _vector_type(kind: int) -> bytes:
    """TypeProto: a tensor of one dimension of any length."""
    dimension = _field(1, _field(2, "n"))
    return _field(1, _number(1, kind) + _field(2, dimension))


def _field(number: int, content: bytes | str) -> bytes:
    """A protobuf field with a length: text, bytes or a message."""
    data = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
