"""Bundles of the tiny Llama by precision, and what is in their graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from edgeprefix.runtime.contracts.manifest import GRAPH_FILE

MakeBundle = Callable[[str], Path]
"""Gives the bundle of a precision, or of one with an int8 cache: "int4", "int4+int8"."""


def graph_of(bundle: Path) -> ir.Graph:
    return ir.load(bundle / GRAPH_FILE).graph


def ops(graph: ir.Graph) -> list[str]:
    return [node.op_type for node in graph]
