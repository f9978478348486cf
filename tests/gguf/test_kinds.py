"""Every kind of numbers in a GGUF file, beside the package gguf: bit for bit where a base is
loaded, and as a bundle holds them.
"""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf_files import HALVES, WITH_STEPS, random_blocks

from edgeprefix.base.gguf import kinds
from edgeprefix.base.gguf.kinds import Kind, kind_of, numbers, rounded_matrix
from edgeprefix.runtime.errors import CheckpointError

IN_BUNDLE = {  # bits and block
    "Q4_0": (4, 32), "Q4_1": (4, 32), "Q5_0": (8, 32), "Q5_1": (8, 32), "Q8_0": (8, 32),
    "Q2_K": (4, 16), "Q3_K": (4, 16), "Q4_K": (4, 32), "Q5_K": (8, 32), "Q6_K": (8, 16),
}  # fmt: skip
WITH_MINIMA = ("Q4_1", "Q5_1", "Q2_K", "Q4_K", "Q5_K")


def kind_named(name: str) -> Kind:
    return kind_of(int(gguf.GGMLQuantizationType[name]), where="here")


def blocks_of(name: str, *, spread: float = 1.0) -> np.ndarray:
    """Random blocks, the first of them without a scale."""
    data = random_blocks(name, 9, 768)
    blocks = data.reshape(-1, kind_named(name).bytes)
    generator = np.random.default_rng(1)
    for place in HALVES[name]:
        halves = generator.normal(0, spread, (len(blocks), 1)).astype(np.float16)
        blocks[:, place : place + 2] = halves.view(np.uint8)
    blocks[0, HALVES[name][0] : HALVES[name][0] + 2] = 0
    return data


@pytest.mark.parametrize("name", WITH_STEPS)
@pytest.mark.parametrize("at_once", [1, 1 << 19])
def test_numbers_are_those_of_the_package(
    name: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "_AT_ONCE", at_once)
    data = blocks_of(name)
    expected = gguf.dequantize(data, gguf.GGMLQuantizationType[name])
    np.testing.assert_array_equal(numbers(kind_named(name), data), expected)


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
def test_plain_numbers(name: str) -> None:
    generator = np.random.default_rng(0)
    stored = gguf.GGMLQuantizationType[name]
    data = gguf.quantize(generator.normal(size=(5, 7)).astype(np.float32), stored)
    expected = gguf.dequantize(data, stored)
    data = np.ascontiguousarray(data).view(np.uint8).reshape(5, -1)
    np.testing.assert_array_equal(numbers(kind_named(name), data), expected.reshape(5, 7))


def test_kinds_without_even_steps_are_unpacked_by_the_package() -> None:
    data = random_blocks("IQ4_XS", 3, 512)
    kind = kind_named("IQ4_XS")
    expected = gguf.dequantize(data, gguf.GGMLQuantizationType.IQ4_XS)
    np.testing.assert_array_equal(numbers(kind, data), expected)
    assert rounded_matrix(kind, data) is None


@pytest.mark.parametrize("name", WITH_STEPS)
@pytest.mark.parametrize("at_once", [1, 1 << 19])
@pytest.mark.parametrize("spread", [1e-6, 1.0, 1e3])
def test_a_bundle_holds_the_same_numbers(
    name: str, at_once: int, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit without minima; with them, within 2⁻²¹ of the larger of the two terms."""
    monkeypatch.setattr(kinds, "_AT_ONCE", at_once)
    kind, data = kind_named(name), blocks_of(name, spread=spread)
    matrix = rounded_matrix(kind, data)
    assert matrix is not None
    assert (matrix.bits, matrix.block) == IN_BUNDLE[name]
    N, blocks = len(data), 768 // matrix.block
    assert matrix.packed.shape == (N, blocks, matrix.block * matrix.bits // 8)
    assert matrix.scales.shape == (N, blocks)
    assert (matrix.zeros is not None) is (name in WITH_MINIMA)
    expected = gguf.dequantize(data, gguf.GGMLQuantizationType[name])
    found = matrix.numbers()
    if matrix.zeros is None:
        np.testing.assert_array_equal(found, expected)
        return
    assert matrix.zeros.dtype == np.float32
    minima = matrix.zeros * matrix.scales
    terms = np.abs(expected.reshape(N, blocks, -1) + minima[..., None])
    larger = np.maximum(terms, np.abs(minima)[..., None]).reshape(N, -1)
    assert np.all(np.abs(found - expected) <= 2.0**-21 * larger)
    flat = expected.reshape(N, blocks, -1)[0, 0]  # the block without a scale: one number
    assert np.all(found.reshape(N, blocks, -1)[0, 0] == flat)


def test_a_kind_that_nobody_knows() -> None:
    with pytest.raises(CheckpointError, match=r"here is of kind 999, which gguf .* does not know"):
        kind_of(999, where="here")
