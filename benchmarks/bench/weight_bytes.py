"""How many bytes of weights one decoding step reads, found in the graph itself.

Every weight is read once a step, whatever the batch, but for tables from which rows are only
gathered (token and position embeddings that the head does not share). The graph is protobuf; its
few fields that matter are read here, since the runtime does without the onnx package.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeprefix.runtime.contracts.manifest import GRAPH_FILE
from edgeprefix.runtime.errors import BundleError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types
_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_INITIALIZER = 7, 1, 5  # field numbers of onnx.proto
_NODE_INPUT, _NODE_OP = 1, 4
_TENSOR_NAME, _TENSOR_EXTERNAL = 8, 13
_TENSOR_DATA = (4, 5, 6, 7, 9, 10, 11)  # float, int32, string, int64, raw, double and uint64 data
_KEY, _VALUE = 1, 2


@dataclass(frozen=True)
class _Reader:
    """Where a weight is read, and whether rows of it are picked there."""

    name: str
    gathers: bool


def weight_bytes_per_step(bundle: str | Path) -> int:
    """Bytes of weights that a decoding step reads. Raises BundleError when the graph is no ONNX
    model.
    """
    path = Path(bundle) / GRAPH_FILE
    try:
        return _count(path.read_bytes())  # small: the weights lie in a file beside it
    except (OSError, ValueError, IndexError, StopIteration) as error:
        raise BundleError(f"{path} cannot be read: {error}; export the bundle again") from error


def _count(model: bytes) -> int:
    sizes: dict[str, int] = {}
    readers: list[_Reader] = []
    for graph in _fields(model, _MODEL_GRAPH):
        for node in _fields(graph, _GRAPH_NODE):
            gathers = any(op.startswith(b"Gather") for op in _fields(node, _NODE_OP))
            readers += [_Reader(name.decode(), gathers) for name in _fields(node, _NODE_INPUT)]
        sizes |= dict(_size(tensor) for tensor in _fields(graph, _GRAPH_INITIALIZER))
    whole = {reader.name for reader in readers if not reader.gathers}
    return sum(size for name, size in sizes.items() if name in whole)


def _size(tensor: bytes) -> tuple[str, int]:
    """A weight's name and its bytes, wherever they lie."""
    name = next((part.decode() for part in _fields(tensor, _TENSOR_NAME)), "")
    for entry in _fields(tensor, _TENSOR_EXTERNAL):
        if next(_fields(entry, _KEY)) == b"length":
            return name, int(next(_fields(entry, _VALUE)))
    return name, sum(len(part) for number in _TENSOR_DATA for part in _fields(tensor, number))


def _fields(message: bytes, wanted: int) -> Iterator[bytes]:
    """The contents of a message's fields of one number, if they have a length."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _BYTES:
            length, at = _varint(message, at)
            if number == wanted:
                yield message[at : at + length]
            at += length
        elif kind == _VARINT:
            _, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind} is no protobuf of ours")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
