"""What a graph asks for and gives, by name: the first half of deciding whether and how it can be
run with a prefix.

Everything that makes a graph unfit is refused here by name, before any weight is read. The other
half, what no name tells, is found by trying: `rehearsal.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from edgeprefix.export.adopt.source import Source
from edgeprefix.export.protos import graphs_of
from edgeprefix.runtime.contracts.manifest import LayerShape
from edgeprefix.runtime.contracts.past_graph import GROWN, IN_PLACE, INPUTS
from edgeprefix.runtime.errors import ExportError

_PAST = re.compile(r"past_key_values\.(\d+)\.(key|value)")
_PAST_LIKE = re.compile(r"past|present|cache", re.IGNORECASE)
_CROSS = re.compile(r"encoder|\.decoder\.(key|value)|decoder_input_ids")
_CACHE_DTYPES = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.FLOAT16: "float16"}
_IN_PLACE_OP = "GroupQueryAttention"

Size = int | str | None
"""A dimension: a number, or the name of what it varies with."""


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a decoder's graph says about itself; H and D are None where it leaves them open."""

    inputs: tuple[str, ...]
    """Those of INPUTS that it has."""
    cache: str
    cache_dtype: str
    heads: tuple[tuple[int | None, int | None], ...]
    """H and D of each layer."""
    windows: tuple[int | None, ...]
    """Of each layer that works in place, whose node says it; empty for others."""
    vocabulary: int | None

    def require_layers(self, layers: Sequence[LayerShape], source: Source) -> None:
        """Raises ExportError when the base has other attention layers."""
        if len(self.heads) != len(layers):
            raise ExportError(
                f"{source.path} has {len(self.heads)} layers, the base {len(layers)}: it is no "
                "export of it"
            )
        for index, ((heads, size), layer) in enumerate(zip(self.heads, layers, strict=True)):
            if heads not in (None, layer.kv_heads) or size not in (None, layer.head_size):
                raise ExportError(
                    f"{source.path}, layer {index}: {heads} key/value heads of {size}, the base "
                    f"has {layer.kv_heads} of "
                    f"{layer.head_size}: it is no export of this base"
                )
        self._require_windows(layers, source)

    def _require_windows(self, layers: Sequence[LayerShape], source: Source) -> None:
        """A graph may leave a sliding window to its own runtime, which edgeprefix is not."""
        # No windows: not in place
        for index, (ours, layer) in enumerate(zip(self.windows, layers, strict=False)):
            if ours is None and layer.window is not None:
                raise ExportError(
                    f"{source.path}, layer {index}: the base attends through a sliding window of "
                    f"{layer.window} tokens, which "
                    "the graph leaves to its own runtime; write the bundle with `edgeprefix "
                    "export decoder`"
                )


def read_signature(source: Source) -> Signature:
    """Reads a graph's inputs and outputs. Raises ExportError, naming what cannot be done."""
    stored = {
        tensor.name for tensor in source.model.graph.initializer
    }  # old exports list weights as inputs
    inputs = {value.name: value for value in source.model.graph.input if value.name not in stored}
    outputs = {value.name: value for value in source.model.graph.output}
    pasts = [name for name in inputs if _PAST.fullmatch(name)]
    _require_decoder(source, list(inputs), pasts)
    layers = _layers(source, pasts, outputs)
    for name in ("input_ids", *pasts):
        _require_free(source, name, _shape(inputs[name]))
    first = inputs["past_key_values.0.key"].type.tensor_type.elem_type
    if first not in _CACHE_DTYPES:
        kind = onnx.TensorProto.DataType.Name(first).lower()
        raise ExportError(
            f"{source.path} keeps its past as {kind}; prefixes are handed to float32 and float16 "
            "pasts"
        )
    windows = _windows(source, pasts)
    return Signature(
        inputs=tuple(name for name in INPUTS if name in inputs),
        cache=IN_PLACE if windows else GROWN,
        cache_dtype=_CACHE_DTYPES[first],
        heads=tuple(
            _heads(_shape(inputs[f"past_key_values.{layer}.key"])) for layer in range(layers)
        ),
        windows=windows,
        vocabulary=_vocabulary(source, outputs),
    )


def _require_decoder(source: Source, inputs: Sequence[str], pasts: Sequence[str]) -> None:
    """Raises ExportError for anything but a decoder over token ids with a past."""
    path = source.path
    if crossing := [name for name in inputs if _CROSS.search(name)]:
        raise ExportError(
            f"{path} takes {crossing[0]}: it is part of an encoder-decoder; only decoder-only "
            "models take a prefix"
        )
    if "input_ids" not in inputs:
        raise ExportError(
            f"{path} takes {', '.join(inputs[:3])} and no input_ids: it is no language model over "
            "token ids"
        )
    unknown = [name for name in inputs if name not in ("input_ids", *INPUTS, *pasts)]
    if others := [name for name in unknown if _PAST_LIKE.search(name)]:
        raise ExportError(
            f"{path} keeps a past named {', '.join(others[:3])}; a prefix enters through "
            "past_key_values.N.key and .value, "
            "so states of another kind or packing cannot be used: export it again with Optimum's "
            "text-generation-with-past"
        )
    if unknown:
        raise ExportError(
            f"{path} takes {', '.join(unknown[:3])}, which edgeprefix cannot give; it knows "
            f"input_ids, {', '.join(INPUTS)} and "
            "past_key_values"
        )
    if not pasts:
        raise ExportError(
            f"{path} has no past_key_values: it was exported without a past (task "
            "text-generation), so no prefix can enter; "
            "export it again with --task text-generation-with-past"
        )


def _layers(source: Source, pasts: Sequence[str], outputs: dict[str, onnx.ValueInfoProto]) -> int:
    """The number of layers. Raises ExportError when a key, value or present is missing."""
    numbers = {int(found.group(1)) for name in pasts if (found := _PAST.fullmatch(name))}
    wanted = [f"{layer}.{kind}" for layer in range(len(numbers)) for kind in ("key", "value")]
    missing = [
        f"past_key_values.{name}" for name in wanted if f"past_key_values.{name}" not in pasts
    ]
    missing += [f"present.{name}" for name in wanted if f"present.{name}" not in outputs]
    if missing:
        raise ExportError(
            f"{source.path} lacks {', '.join(missing[:3])}; a prefix needs a key and a value of "
            "every layer, in and out"
        )
    return len(numbers)


def _require_free(source: Source, name: str, shape: list[Size]) -> None:
    """Batch, tokens and past must be free dimensions."""
    rank, free = (4, (0, 2)) if name != "input_ids" else (2, (0, 1))
    if len(shape) != rank:
        raise ExportError(
            f"{source.path}: {name} has {len(shape)} dimensions, expected {rank}; export it again"
        )
    fixed = [axis for axis in free if isinstance(shape[axis], int)]
    if fixed:
        raise ExportError(
            f"{source.path}: {name} has the fixed shape {shape}; rows, tokens and past must be "
            "free: export it with dynamic axes"
        )


def _windows(source: Source, pasts: Sequence[str]) -> tuple[int | None, ...]:
    """Windows of the attention nodes, in the layers' order, when every past goes straight into one
    that can write to it.
    """
    used: dict[str, list[onnx.NodeProto]] = {name: [] for name in pasts}
    for graph in graphs_of(source.model.graph):
        for node in graph.node:
            for name in node.input:
                if name in used:
                    used[name].append(node)
    if any([node.op_type for node in nodes] != [_IN_PLACE_OP] for nodes in used.values()):
        return ()
    return tuple(
        _window(used[f"past_key_values.{layer}.key"][0]) for layer in range(len(pasts) // 2)
    )


def _window(node: onnx.NodeProto) -> int | None:
    size = next(
        (attribute.i for attribute in node.attribute if attribute.name == "local_window_size"), -1
    )
    return size if size > 0 else None


def _vocabulary(source: Source, outputs: dict[str, onnx.ValueInfoProto]) -> int | None:
    if "logits" not in outputs:
        raise ExportError(
            f"{source.path} gives {', '.join(list(outputs)[:3])} and no logits: it is no language "
            "model"
        )
    shape = _shape(outputs["logits"])
    if len(shape) == 3 and shape[1] == 1:
        raise ExportError(
            f"{source.path} gives the logits of the last token only; scoring and verifying need "
            "those of every token: build it "
            "without pruning its head"
        )
    return shape[-1] if shape and isinstance(shape[-1], int) else None


def _heads(shape: list[Size]) -> tuple[int | None, int | None]:
    """H and D of a past [B, H, T, D]."""
    return tuple(size if isinstance(size, int) else None for size in (shape[1], shape[3]))  # type: ignore[return-value]


def _shape(value: onnx.ValueInfoProto) -> list[Size]:
    dimensions: Any = value.type.tensor_type.shape.dim
    return [
        size.dim_value if size.HasField("dim_value") else size.dim_param or None
        for size in dimensions
    ]
