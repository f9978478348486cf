"""`verify` with a prefix of the caller's, and how its report counts."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from graphs import MakeBundle

from edgeprefix.base import Base
from edgeprefix.export import verify
from edgeprefix.export.bundle import build_graph, write_bundle
from edgeprefix.export.parity import BOUNDS, ParityReport, compare
from edgeprefix.export.precision import to_precision
from edgeprefix.runtime.contracts.prefix_file import Prefix, PrefixLayer
from edgeprefix.runtime.errors import BaseMismatchError, BundleError


def some_prefix(base: Base, length: int) -> Prefix:
    random = np.random.default_rng(0)
    layers = tuple(
        PrefixLayer(*random.standard_normal((2, 2, length, 16)).astype(np.float32))
        for _ in range(2)
    )
    return Prefix(name="task", base=base.identity, layers=layers)


def test_a_given_prefix_is_in_the_cache(
    llama: Base, llama_bundle: MakeBundle, tmp_path: Path
) -> None:
    file = tmp_path / "task.safetensors"
    some_prefix(llama, 30).save(file)
    plain, prefixed = (
        verify(llama_bundle("fp32"), llama),
        verify(llama_bundle("fp32"), llama, prefix=file),
    )
    assert prefixed.passed, prefixed.to_text()
    assert [case.max_abs for case in plain.cases] != [case.max_abs for case in prefixed.cases]


def test_a_prefix_that_cannot_be_used_is_refused(
    llama: Base, llama_bundle: MakeBundle, tmp_path: Path
) -> None:
    other = dataclasses.replace(llama.identity, name="other", weights_sha256="0" * 64)
    foreign = dataclasses.replace(some_prefix(llama, 5), base=other)
    with pytest.raises(BaseMismatchError, match="'task' belongs to base other"):
        verify(llama_bundle("fp32"), llama, prefix=foreign)
    with pytest.raises(BaseMismatchError, match="has 255 positions, the base only 256"):
        verify(llama_bundle("fp32"), llama, prefix=some_prefix(llama, 255))
    with pytest.raises(BundleError, match="is no bundle"):
        verify(tmp_path, llama)


def test_how_a_report_counts() -> None:
    expected = np.array([[0.0, 1.0, 3.0], [4.0, 0.0, 0.0], [2.0, 2.0, 0.0]])
    same = compare("same", list(expected), list(expected))
    assert (same.max_abs, same.kl, same.top1, same.first_divergence) == (0.0, 0.0, 1.0, None)
    moved = expected.copy()
    moved[1] = [0.0, 4.0, 0.0]  # another first choice
    moved[2] = [2.0, 2.1, 0.0]  # torch holds both equal: no divergence
    case = compare("moved", list(moved), list(expected))
    assert (case.max_abs, case.relative, case.first_divergence) == (4.0, 1.0, 1)
    assert case.top1 == pytest.approx(2 / 3)
    report = ParityReport(precision="fp32", bounds=BOUNDS["fp32"], cases=(same, case))
    assert not report.passed
    assert report.top1 == pytest.approx(5 / 6)
    assert report.failures == ("relative difference 1.00e+00 is over 1e-04",)


def test_numbers_that_are_none_fail() -> None:
    broken = compare("nan", [np.array([np.nan, 1.0])], [np.array([0.0, 1.0])])
    report = ParityReport(precision="int4", bounds=BOUNDS["int4"], cases=(broken,))
    assert "NaN" in report.failures[0]


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_rounding_does_not_hide_a_wrong_graph(precision: str, llama: Base, tmp_path: Path) -> None:
    """One layer's output half as large again: int4's wide bounds to fp32 hold, those to the same
    rounded weights do not.
    """
    wrong = dataclasses.replace(llama, model=copy.deepcopy(llama.model))
    wrong.model.model.layers[0].mlp.down_proj.weight *= 1.5
    layers, graph = build_graph(wrong)
    write_bundle(wrong, layers, to_precision(graph, precision), tmp_path, precision=precision)
    report = verify(tmp_path, llama)
    assert not report.passed
    assert any("the graph itself is wrong" in failure for failure in report.failures), (
        report.to_text()
    )
    if precision == "int4":
        assert report.kl < 0.5
        assert report.noise < 1.0


def test_the_base_is_as_before_when_its_weights_were_rounded(
    llama: Base, llama_bundle: MakeBundle
) -> None:
    before = {name: weight.clone() for name, weight in llama.model.state_dict().items()}
    report = verify(llama_bundle("int4"), llama)
    assert report.rounded is not None
    assert report.rounded.noise < report.noise / 4
    assert report.to_json()["rounded"]["bounds"] == {"relative": None, "kl": 0.02, "noise": 0.2}
    assert report.to_text().splitlines()[-2].startswith("rounded")
    assert all(weight.equal(before[name]) for name, weight in llama.model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in llama.model.modules())
