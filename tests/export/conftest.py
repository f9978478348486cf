"""Bundles of the tiny bases, traced once a session, in every precision."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
from graphs import MakeBundle

from edgeprefix.base import Base, load_base
from edgeprefix.export.bundle import build_graph, write_bundle
from edgeprefix.export.calibration import measure_scales
from edgeprefix.export.precision import to_precision
from edgeprefix.export.trace import Layer


@pytest.fixture(scope="session")
def llama(llama_base: Path) -> Base:
    return load_base(llama_base)


@pytest.fixture(scope="session")
def lean_llama(llama: Base) -> tuple[tuple[Layer, ...], ir.Model]:
    return build_graph(llama)


@pytest.fixture(scope="session")
def llama_bundle(
    llama: Base,
    lean_llama: tuple[tuple[Layer, ...], ir.Model],
    tmp_path_factory: pytest.TempPathFactory,
) -> MakeBundle:
    """Gives the bundle of the tiny Llama in a precision, or in one with an int8 cache, "int4+int8"
    say.
    """
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            precision, _, cache = kind.partition("+")
            layers, graph = lean_llama
            scales = measure_scales(llama) if cache else None
            lean = to_precision(graph.clone(), precision)
            write_bundle(llama, layers, lean, made[kind], precision=precision, scales=scales)
        return made[kind]

    return make
