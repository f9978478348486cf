"""`verify` with a prefix of the caller's, and how its report counts."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from graphs import MakeBundle
from wrong_graphs import Exported, attentions, exported, written

from edgeprefix.base import Base
from edgeprefix.export import verify
from edgeprefix.export.bundle import build_graph, write_bundle
from edgeprefix.export.comparison import CaseReport, compare
from edgeprefix.export.parity import BOUNDS, ParityReport, bounds_of
from edgeprefix.export.precision import to_precision
from edgeprefix.export.verify import graph_side, torch_side
from edgeprefix.runtime.contracts.manifest import Manifest
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


def case_of(**numbers: float) -> CaseReport:
    """A case that is right, but for some numbers."""
    right: dict[str, Any] = {
        "name": "case", "positions": 10, "max_abs": 0.0, "relative": 0.0, "kl": 0.0, "noise": 0.0,
        "top1": 1.0, "first_divergence": None,
    }  # fmt: skip
    return CaseReport(**(right | numbers))


def report_of(kind: str, *, where: str, **numbers: float) -> ParityReport:
    """A report of a bundle ("int4+int8", say) in which one case is out of line."""
    precision, _, cache = kind.partition("+")
    odd, right = case_of(**numbers), case_of()
    compared = where in ("rounded", "exact")
    return ParityReport(
        precision=precision,
        cache=cache or "float32",
        bounds=bounds_of(precision, cache or "float32", rounded=compared),
        cases=(right, right, right, odd if where == "cases" else right),
        rounded={"rounded": odd, "exact": right}.get(where),
        exact={"rounded": right, "exact": odd}.get(where),
    )


@pytest.mark.parametrize(
    ("kind", "where", "number", "bound"),
    [
        ("fp32", "cases", "relative", 1e-4),
        ("fp16", "cases", "relative", 5e-2),
        ("fp16", "cases", "kl", 1e-3),
        ("int8", "cases", "kl", 0.05),
        ("int8", "cases", "noise", 0.3),
        ("fp32+int8", "cases", "kl", 0.05),
        ("fp32+int8", "cases", "noise", 0.3),
        ("int4", "cases", "kl", 0.5),
        ("int4", "cases", "noise", 1.0),
        ("int4+int8", "cases", "kl", 0.5),
        ("int8", "rounded", "kl", 0.02),
        ("int8", "rounded", "noise", 0.2),
        ("int4", "rounded", "kl", 0.02),
        ("int4", "rounded", "noise", 0.2),
        ("int8", "exact", "relative", 3e-4),
        ("int4+int8", "exact", "relative", 3e-4),
    ],
)
def test_every_bound_holds(kind: str, where: str, number: str, bound: float) -> None:
    """One bad case among good ones is not averaged away."""
    assert report_of(kind, where=where, **{number: 0.999 * bound}).passed
    failed = report_of(kind, where=where, **{number: 1.001 * bound})
    assert len(failed.failures) == 1
    assert {"kl": "KL", "noise": "noise", "relative": "relative"}[number] in failed.failures[0]
    assert not report_of(kind, where=where, **{number: float("nan")}).passed


def test_what_has_no_number_fails_too() -> None:
    report = report_of("fp32", where="cases")
    assert report.passed
    assert dataclasses.replace(report, faults=("a layer is missing",)).failures == (
        "a layer is missing",
    )
    assert dataclasses.replace(report, cut=0.01).passed
    assert "1.1% of the prefix's numbers" in dataclasses.replace(report, cut=0.011).failures[0]


@pytest.fixture(scope="module")
def wide() -> Exported:
    """A window of 2,048 positions, which no text passes in a test's time."""
    return exported("mistral", sliding_window=2048, max_position_embeddings=4096)


@pytest.mark.parametrize("kind", ["fp32", "fp16", "int4+int8"])
def test_a_wide_window_is_passed(kind: str, wide: Exported, tmp_path: Path) -> None:
    """With a prefix instead of text. Without it in the graph, both the numbers and the comparison
    of attributes say so; with another one, at least the attributes do.
    """
    right = written(wide, kind, tmp_path / "right")
    manifest = Manifest.load(right)
    expected = torch_side(right, manifest, wide[0])
    report = graph_side(right, manifest, expected)
    assert report.passed, report.to_text()
    assert [row.prefix_length for row in expected.rows.beyond] == [2048 + 256]

    def drop(graph: ir.Graph) -> None:
        del attentions(graph)[0].attributes["local_window_size"]

    report = graph_side(written(wide, kind, tmp_path / "wrong", fault=drop), manifest, expected)
    assert report.faults == (
        "layer 0 has a window of all positions, in torch of 2048: the graph itself is wrong",
    )
    assert not dataclasses.replace(report, faults=()).passed, report.to_text()

    def shorten(graph: ir.Graph) -> None:
        attentions(graph)[1].attributes["local_window_size"] = ir.AttrInt64(
            "local_window_size", 2047
        )

    report = graph_side(written(wide, kind, tmp_path / "short", fault=shorten), manifest, expected)
    assert not report.passed
    assert "layer 1 has a window of 2047 positions" in report.faults[0]


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
    assert [line.split()[0] for line in report.to_text().splitlines()[-4:-2]] == [
        "rounded",
        "exact",
    ]
    assert report.exact is not None
    assert report.exact.relative < 1e-5
    assert all(weight.equal(before[name]) for name, weight in llama.model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in llama.model.modules())
