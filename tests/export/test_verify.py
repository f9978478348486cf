"""`verify` with a prefix of the caller's, and how its report counts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from conftest import MakeBundle

from edgeprefix.export import verify
from edgeprefix.export.base import Base
from edgeprefix.export.parity import BOUNDS, ParityReport, compare
from edgeprefix.runtime.contracts.prefix_file import Prefix, PrefixLayer
from edgeprefix.runtime.errors import BaseMismatchError, BundleError


def some_prefix(base: Base, length: int) -> Prefix:
    random = np.random.default_rng(0)
    layers = tuple(PrefixLayer(*random.standard_normal((2, 2, length, 16)).astype(np.float32)) for _ in range(2))
    return Prefix(name="task", base=base.identity, layers=layers)


def test_a_given_prefix_is_in_the_cache(llama: Base, llama_bundle: MakeBundle, tmp_path: Path) -> None:
    file = tmp_path / "task.safetensors"
    some_prefix(llama, 30).save(file)
    plain, prefixed = verify(llama_bundle("fp32"), llama), verify(llama_bundle("fp32"), llama, prefix=file)
    assert prefixed.passed, prefixed.to_text()
    assert [case.max_abs for case in plain.cases] != [case.max_abs for case in prefixed.cases]


def test_a_prefix_that_cannot_be_used_is_refused(llama: Base, llama_bundle: MakeBundle, tmp_path: Path) -> None:
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
