"""`verify` must fail for every wrong graph, whatever its precision: faults are put into a right
one, one at a time.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from wrong_graphs import Exported, exported, faults, written

from edgeprefix.export.verify import graph_side, torch_side
from edgeprefix.runtime.contracts.manifest import Manifest


@pytest.fixture(scope="module")
def gemma() -> Exported:
    """Windows, two soft caps, norms before and after, a tied head that is rounded otherwise."""
    return exported("gemma2", attn_logit_softcapping=2.0)


def check_every_fault(export: Exported, kind: str, folder: Path) -> None:
    right = written(export, kind, folder / "right")
    manifest = Manifest.load(right)
    expected = torch_side(right, manifest, export[0])
    report = graph_side(right, manifest, expected)
    assert report.passed, report.to_text()
    unnoticed = []
    for number, (name, fault) in enumerate(faults(export[2].graph, len(manifest.layers))):
        wrong = written(export, kind, folder / str(number), fault=fault)
        # By its numbers alone: what is read off the graph's attributes would see only some of them
        found = dataclasses.replace(graph_side(wrong, manifest, expected), faults=())
        if found.passed:
            unnoticed.append(name)
    assert number > 20
    assert unnoticed == []


@pytest.mark.parametrize(
    "kind",
    [
        "fp32",
        "int4+int8",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("int8", "int4", "fp32+int8")),
    ],
)
def test_every_fault_is_found(kind: str, gemma: Exported, tmp_path: Path) -> None:
    check_every_fault(gemma, kind, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["gpt2", "qwen3", "gpt_oss", "cohere2", "gemma3"])
def test_every_fault_is_found_in_others(model_type: str, tmp_path: Path) -> None:
    check_every_fault(exported(model_type), "int4+int8", tmp_path)
