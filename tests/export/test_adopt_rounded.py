"""Graphs that others rounded: what they leave out cannot hide behind their rounding."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from past_graph import export_past_graph

from edgeprefix.base import Base
from edgeprefix.export.adopt import adopt
from edgeprefix.export.own_numbers import computing_with
from edgeprefix.export.stored import find_stored
from edgeprefix.runtime.decoding.quiet_ort import ort
from edgeprefix.runtime.errors import ParityError

Rounding = Callable[[Path, Path], None]


@pytest.fixture(scope="module")
def plain(llama: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama as others export it, its projections constants [K, N]."""
    folder = tmp_path_factory.mktemp("plain")
    export_past_graph(llama.model, folder / "traced.onnx")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "model.onnx")
    ort.InferenceSession(str(folder / "traced.onnx"), options, providers=["CPUExecutionProvider"])
    return folder / "model.onnx"


def by_blocks(**settings: object) -> Rounding:
    """ONNX Runtime's weight-only rounding to 4 or 8 bits."""

    def write(source: Path, target: Path) -> None:
        quantizer = MatMulNBitsQuantizer(onnx.load(str(source)), block_size=32, **settings)
        quantizer.process()
        quantizer.model.save_model_to_file(str(target))

    return write


def of_activations(source: Path, target: Path) -> None:
    """Eight bits, activations rounded as a whole while the graph runs."""
    quantize_dynamic(source, target, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])


ROUNDINGS = {
    "int4": by_blocks(is_symmetric=True, accuracy_level=4),
    "int4 with zero points": by_blocks(is_symmetric=False, accuracy_level=4),
    "int4 tables": by_blocks(
        is_symmetric=True, accuracy_level=4, op_types_to_quantize=("MatMul", "Gather")
    ),
    "int4 as QDQ": by_blocks(is_symmetric=True, quant_format=QuantFormat.QDQ),
    "int8": by_blocks(bits=8, is_symmetric=True, accuracy_level=4),
    "dynamic int8": of_activations,
}


def edited(source: Path, target: Path, edit: Callable[[onnx.GraphProto], None]) -> Path:
    model = onnx.load(str(source))
    edit(model.graph)
    onnx.save(model, str(target))
    return target


def without_layer(index: int, base: Base) -> Callable[[onnx.GraphProto], None]:
    """Zero is all that the layer adds."""
    layer = base.model.model.layers[index]
    gone = [layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight]

    def edit(graph: onnx.GraphProto) -> None:
        found = 0
        for tensor in graph.initializer:
            array = numpy_helper.to_array(tensor)
            for weight in gone:
                if array.shape == tuple(weight.T.shape) and np.array_equal(array, weight.T.numpy()):
                    tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(array), tensor.name))
                    found += 1
        assert found == 2

    return edit


def folder_of(graph: Path, folder: Path, rounding: Rounding) -> Path:
    folder.mkdir()
    rounding(graph, folder / "model.onnx")
    return folder


@pytest.mark.parametrize("kind", ROUNDINGS)
def test_a_layer_that_is_left_out_is_missed(
    kind: str, plain: Path, llama: Base, tmp_path: Path
) -> None:
    right = folder_of(plain, tmp_path / "onnx", ROUNDINGS[kind])
    manifest = adopt(right, tmp_path / "bundle", base=llama.folder)
    if kind == "dynamic int8":
        assert manifest.parity["exact"] is None
        assert manifest.parity["rounded"] is None
    else:
        assert manifest.parity["exact"]["relative"] < 1e-5
        assert manifest.parity["rounded"]["noise"] < 0.1
    for index in range(2):
        graph = edited(plain, tmp_path / f"{index}.onnx", without_layer(index, llama))
        wrong = folder_of(graph, tmp_path / f"wrong-{index}", ROUNDINGS[kind])
        message = f"without layer {index}" if kind == "dynamic int8" else "none of the base's"
        with pytest.raises(ParityError, match=message):
            adopt(wrong, tmp_path / "no-bundle", base=llama.folder)


def test_one_int4_tensor_buys_no_wide_bounds(plain: Path, llama: Base, tmp_path: Path) -> None:
    """Beside it a layer of full precision is wrong."""

    def edit(graph: onnx.GraphProto) -> None:
        nodes = [node for node in graph.node if node.op_type == "MatMul"]
        tensor = next(t for t in graph.initializer if t.name == nodes[3].input[1])
        scrambled = np.roll(numpy_helper.to_array(tensor), 1, axis=0)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(scrambled), tensor.name))
        nibbles = helper.make_tensor("spare", TensorProto.INT4, [2, 2], [1, 2, 3, 4])
        graph.initializer.append(nibbles)

    wrong = folder_of(
        edited(plain, tmp_path / "wrong.onnx", edit), tmp_path / "onnx", shutil.copyfile
    )
    with pytest.raises(ParityError, match=r"relative difference .* is over 1e-04"):
        adopt(wrong, tmp_path / "bundle", base=llama.folder)


def test_the_base_is_as_before(plain: Path, llama: Base, tmp_path: Path) -> None:
    """Stored numbers are in its modules only while they run."""
    folder_of(plain, tmp_path / "onnx", ROUNDINGS["int4"])
    shutil.move(tmp_path / "onnx" / "model.onnx", tmp_path / "onnx" / "decoder.onnx")
    before = {name: weight.clone() for name, weight in llama.model.state_dict().items()}
    stored = find_stored(tmp_path / "onnx", llama.model)
    assert stored is not None
    assert len(stored.readers) == 2 * 7 + 1
    assert stored.strangers == ()
    with computing_with(stored):
        llama.model(llama.model.dummy_inputs["input_ids"] % 300)
    assert all(weight.equal(before[name]) for name, weight in llama.model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in llama.model.modules())
