"""fp16, int8 and int4: what is stored, how large it is, and that it still says what torch says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from graphs import MakeBundle, graph_of, ops
from zoo import tiny_model

from edgeprefix.base import Base, load_base
from edgeprefix.base.rounding import WeightFormat, dequantise
from edgeprefix.export.blockwise import BlockwiseWeight
from edgeprefix.export.bundle import build_graph, write_bundle
from edgeprefix.export.precision import to_precision
from edgeprefix.export.verify import verify
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.errors import ExportError
from tiny import save_checkpoint, tiny_llama


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_a_bundle_stays_within_its_bounds(
    precision: str, llama: Base, llama_bundle: MakeBundle
) -> None:
    report = verify(llama_bundle(precision), llama)
    assert report.passed, report.to_text()


def test_the_tied_embedding_is_stored_once(llama: Base, llama_bundle: MakeBundle) -> None:
    """Sizes of the data file: every parameter once, plus rotary tables, scales and page
    alignment.
    """
    parameters = sum(parameter.numel() for parameter in llama.model.parameters())
    matrices = sum(
        parameter.numel() for parameter in llama.model.parameters() if parameter.dim() == 2
    )
    tables, pages = 2 * 256 * 8 * 4, 40 * 4096
    size = {
        name: (llama_bundle(name) / "decoder.onnx.data").stat().st_size
        for name in ("fp32", "fp16", "int8")
    }
    assert size["fp32"] < parameters * 4 + tables + pages
    assert size["fp16"] < parameters * 2 + tables + pages
    assert size["int8"] < matrices * (1 + 4 / 32) + tables + pages


def test_quantised_embedding_and_head_share_their_bytes(llama_bundle: MakeBundle) -> None:
    graph = graph_of(llama_bundle("int4"))
    gather = next(node for node in graph if node.op_type == "GatherBlockQuantized")
    head = [node for node in graph if node.op_type == "MatMulNBits"][-1]
    places = [
        (t.offset, t.length) for t in (gather.inputs[0].const_value, head.inputs[1].const_value)
    ]
    assert places[0] == places[1]


def test_fp16_keeps_logits_in_fp32(llama_bundle: MakeBundle) -> None:
    graph = graph_of(llama_bundle("fp16"))
    assert graph.outputs[0].dtype == ir.DataType.FLOAT
    assert {value.dtype for value in graph.inputs if str(value.name).startswith("past")} == {
        ir.DataType.FLOAT16
    }
    assert Manifest.load(llama_bundle("fp16")).cache_dtype == "float16"


def test_quantised_projections_have_no_float_weights(llama_bundle: MakeBundle) -> None:
    for precision in ("int8", "int4"):
        names = ops(graph_of(llama_bundle(precision)))
        assert names.count("MatMulNBits") == 2 * 4 + 1
        assert "MatMul" not in names
        assert "Gemm" not in names


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("features", [64, 96, 72, 20])
def test_rounding_is_to_the_nearest_step(features: int, bits: int, symmetric: bool) -> None:
    """Of all numbers that a block can hold, each weight becomes the nearest one, which is within
    half a step but at the block's two ends. Also where no block size divides the input features:
    the last block is padded.
    """
    array = np.random.default_rng(0).uniform(-1, 1, (features, 10)).astype(np.float32)
    weight = BlockwiseWeight(
        ir.Tensor(array), WeightFormat(bits=bits, block=64, symmetric=symmetric)
    )
    packed, scales = weight.packed(), weight.scales()
    assert packed.shape == weight.packed_shape
    zeros = None if symmetric else weight.zeros()
    numbers = dequantise(packed, scales, zeros, bits)[:, :features]  # [N, K]
    every = np.arange(2**bits)
    error = np.abs(numbers - array.T)
    for block in range(weight.blocks):
        columns = slice(block * weight.block, min((block + 1) * weight.block, features))
        for row in range(10):
            offset = 2.0 ** (bits - 1) if zeros is None else _zero_point(zeros[row], block, bits)
            held = (every - offset) * scales[row, block]
            nearest = np.abs(held[:, None] - array.T[row, columns]).min(axis=0)
            np.testing.assert_allclose(error[row, columns], nearest, atol=1e-6)
            inside = (array.T[row, columns] >= held.min()) & (array.T[row, columns] <= held.max())
            assert nearest[inside].max() <= abs(scales[row, block]) / 2 + 1e-6
            assert nearest.max() <= abs(scales[row, block]) + 1e-6


def _zero_point(packed: np.ndarray, block: int, bits: int) -> int:
    """Low bits first."""
    return int(packed[block] if bits == 8 else packed[block // 2] >> 4 * (block % 2) & 15)


def test_a_block_pads_the_features_by_an_eighth_at_most() -> None:
    chosen = {
        K: WeightFormat(bits=4, block=256, padding=1 / 8).block_for(K)
        for K in (1024, 896, 768, 576, 192, 80, 20)
    }
    assert chosen == {1024: 256, 896: 128, 768: 256, 576: 128, 192: 64, 80: 16, 20: 16}


def test_sizes_of_the_precisions(llama_bundle: MakeBundle) -> None:
    size = {name: _weights(llama_bundle(name)) for name in ("fp32", "fp16", "int8", "int4")}
    assert size["fp32"] > size["fp16"] > size["int8"] > size["int4"]


def _weights(bundle: Path) -> int:
    """Bytes of all initializers, those stored once counted once."""
    tensors = [value.const_value for value in graph_of(bundle).initializers.values()]
    places = {(t.offset, t.length) for t in tensors if isinstance(t, ir.ExternalTensor)}
    return sum(length for _, length in places)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["qwen3_moe", "gpt_oss", "mixtral"])
def test_experts_are_stored_in_few_bits(model_type: str, tmp_path: Path) -> None:
    """And equal torch on the same rounded weights: which experts a token gets is not left to
    chance.
    """
    identity = BaseIdentity(
        name=model_type, weights_sha256="0", config_sha256="0", tokenizer_sha256="0"
    )
    base = Base(folder=tmp_path, identity=identity, model=tiny_model(model_type), tokenizer=None)
    layers, graph = build_graph(base)
    plain = write_bundle(base, layers, graph.clone(), _folder(tmp_path, "fp32"), precision="fp32")
    small = write_bundle(
        base, layers, to_precision(graph, "int4"), _folder(tmp_path, "int4"), precision="int4"
    )
    sizes = [manifest.files["decoder.onnx.data"].bytes for manifest in (plain, small)]
    # The embedding, two matrices a layer
    assert ops(graph_of(tmp_path / "int4")).count("GatherBlockQuantized") == 1 + 2 * 2
    assert sizes[1] < 0.4 * sizes[0]
    report = verify(tmp_path / "int4", base)
    assert report.passed, report.to_text()


def _folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name


@pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj.weight", "model.norm.weight"])
def test_a_weight_beyond_fp16_is_named(name: str, tmp_path: Path) -> None:
    """By its name in the checkpoint, a matrix that was packed with others and a small vector alike;
    with the limit, and what takes it.
    """
    model = tiny_llama()
    with torch.no_grad():
        model.get_parameter(name).view(-1)[3] = -90_000.0
    base = load_base(save_checkpoint(model, tmp_path / "base"))
    layers, graph = build_graph(base)
    with pytest.raises(
        ExportError,
        match=rf"base: weight {name} reaches 90000, more than fp16 holds \(65504\); export with "
        "--precision fp32, int8 or int4",
    ):
        lean = to_precision(graph.clone(), "fp16")
        write_bundle(base, layers, lean, _folder(tmp_path, "fp16"), precision="fp16")
    write_bundle(base, layers, graph, _folder(tmp_path, "fp32"), precision="fp32")
    assert verify(tmp_path / "fp32", base).passed


def test_activations_that_do_not_bear_8_bits_are_called_that(tmp_path: Path) -> None:
    """In each block of activations one channel is ten thousand times larger than the others, which
    round to nothing; in fp32 the base is the same. The graph is not to blame.
    """
    model = tiny_llama()
    channels = slice(3, None, 16)  # one in every block, however small
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.up_proj.weight[channels] *= 1e4
            layer.mlp.down_proj.weight[:, channels] /= 1e4
    base = load_base(save_checkpoint(model, tmp_path / "base"))
    layers, graph = build_graph(base)
    lean = to_precision(graph, "int8")
    write_bundle(base, layers, lean, _folder(tmp_path, "bundle"), precision="int8")
    report = verify(tmp_path / "bundle", base)
    assert report.exact is not None
    assert report.exact.relative < 1e-4
    assert any(
        "the graph is right, but this base's activations do not bear the rounding" in failure
        for failure in report.failures
    ), report.to_text()
    assert not any("wrong" in failure for failure in report.failures)
