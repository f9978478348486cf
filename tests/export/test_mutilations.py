"""Every mutilation of a graph is refused, by its numbers alone: what is read off the attributes of
our own graphs cannot be read off another exporter's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
from mutilations import NORMS, SINKS, SOFTCAP, WINDOWS
from wrong_graphs import Exported, Fault, exported, written

from edgeprefix.export.verify import graph_side, torch_side
from edgeprefix.runtime.contracts.manifest import Manifest

_MIXED = ["sliding_attention", "full_attention"]
BASES: Mapping[str, tuple[dict[str, object], Mapping[str, Fault]]] = {
    "gemma3_text": (
        {"layer_types": _MIXED, "sliding_window": 512, "max_position_embeddings": 1024},
        {**WINDOWS, **NORMS},
    ),
    "gemma2": ({"attn_logit_softcapping": 2.0, "layer_types": _MIXED}, {**WINDOWS, **SOFTCAP}),
    "gpt_oss": ({"layer_types": _MIXED}, {**WINDOWS, **SINKS}),
    "qwen3": (
        {
            "layer_types": _MIXED,
            "use_sliding_window": True,
            "max_window_layers": 1,
            "sliding_window": 2048,
            "max_position_embeddings": 4096,
        },
        {**WINDOWS, **NORMS},
    ),
}


def check(model_type: str, kind: str, folder: Path) -> None:
    changes, mutilations = BASES[model_type]
    export: Exported = exported(model_type, **changes)
    right = written(export, kind, folder / "right")
    manifest = Manifest.load(right)
    expected = torch_side(right, manifest, export[0])
    report = graph_side(right, manifest, expected)
    assert report.passed, report.to_text()
    unnoticed = []
    for number, (name, fault) in enumerate(mutilations.items()):
        wrong = written(export, kind, folder / str(number), fault=fault)
        found = dataclasses.replace(graph_side(wrong, manifest, expected), faults=())
        if found.passed:
            unnoticed.append(name)
    assert unnoticed == []


@pytest.mark.parametrize("model_type", BASES)
def test_a_mutilated_graph_is_refused(model_type: str, tmp_path: Path) -> None:
    check(model_type, "int4", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8", "fp32+int8", "int4+int8"])
@pytest.mark.parametrize("model_type", BASES)
def test_a_mutilated_graph_is_refused_in_every_precision(
    kind: str, model_type: str, tmp_path: Path
) -> None:
    check(model_type, kind, tmp_path)
