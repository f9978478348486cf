"""Right graphs of tiny bases, and the faults that can be put into them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
from zoo import tiny_model

from edgeprefix.base import Base
from edgeprefix.export.bundle import build_graph, write_bundle
from edgeprefix.export.calibration import measure_scales
from edgeprefix.export.precision import to_precision
from edgeprefix.export.trace import Layer
from edgeprefix.runtime.contracts.identity import BaseIdentity

Fault = Callable[[ir.Graph], None]
Exported = tuple[Base, tuple[Layer, ...], ir.Model]


def exported(model_type: str, **changes: object) -> Exported:
    identity = BaseIdentity(
        name=model_type, weights_sha256="0", config_sha256="0", tokenizer_sha256="0"
    )
    model = tiny_model(model_type, **changes)
    base = Base(folder=Path(), identity=identity, model=model, tokenizer=None)
    return (base, *build_graph(base))


def faults(graph: ir.Graph, layers: int) -> Iterator[tuple[str, Fault]]:
    """Every weight with its rows moved on by one (of a rotary table: all positions off by one),
    every factor half as large again, every attribute of an attention node that says what it
    computes, and every layer left out.
    """
    for name, value in graph.initializers.items():
        if value.dtype == ir.DataType.FLOAT:
            yield f"scrambled {name}", lambda graph, name=name: _change(graph, name, _scrambled)
    for index in range(layers):
        yield f"without layer {index}", lambda graph, index=index: leave_out(graph, index)
    for place, node in enumerate(attentions(graph)):
        for name in {"local_window_size", "softcap", "do_rotary"} & node.attributes.keys():
            yield (
                f"attention {place} without {name}",
                lambda graph, place=place, name=name: attentions(graph)[place].attributes.pop(name),
            )


def _scrambled(numbers: np.ndarray) -> np.ndarray:
    return np.roll(numbers, 1, axis=0) if numbers.ndim else numbers * np.float32(1.5)


def _change(graph: ir.Graph, name: str, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    value = graph.initializers[name]
    assert value.const_value is not None
    value.const_value = ir.Tensor(np.ascontiguousarray(edit(value.const_value.numpy())), name=name)


def leave_out(graph: ir.Graph, index: int) -> None:
    """What a layer adds to the residual stream becomes zero."""
    for name in list(graph.initializers):
        if f"layers.{index}." in name and (".o_proj." in name or ".down_proj." in name):
            _change(graph, name, np.zeros_like)


def attentions(graph: ir.Graph) -> list[ir.Node]:
    return [node for node in graph if node.op_type == "GroupQueryAttention"]


def written(export: Exported, kind: str, folder: Path, *, fault: Fault | None = None) -> Path:
    """A bundle, its graph with a fault in it."""
    base, layers, graph = export
    precision, _, cache = kind.partition("+")
    model = graph.clone()
    if fault is not None:
        fault(model.graph)
    folder.mkdir()
    write_bundle(
        base,
        layers,
        to_precision(model, precision),
        folder,
        precision=precision,
        scales=measure_scales(base) if cache else None,
    )
    return folder
