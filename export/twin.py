"""A bundle's graph without the rounding that happens while it runs.

Quantised kernels round activations to 8 bits, an int8 cache rounds keys and values. Both are
wanted, and both hide what else may be wrong. The twin is the same graph over the same weight files,
its products and its cache in fp32: what it computes must equal torch on the same weights to the
last digits, whatever the bundle's precision.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import onnx
from onnx import TensorProto

from edgeprefix.export.protos import nodes_of, tensors_of
from edgeprefix.runtime.contracts.manifest import GRAPH_FILE, Manifest
from edgeprefix.runtime.decoding.decoder import SlotDecoder
from edgeprefix.runtime.decoding.opening import CacheSize, open_decoder

_CACHE_ATTRIBUTES = ("k_quant_type", "v_quant_type", "kv_cache_bit_width")
_SCALES = slice(12, 14)  # places of k_scale and v_scale among the inputs of GroupQueryAttention
_EXACT = 1  # accuracy_level of MatMulNBits: activations stay in fp32


def open_twin(bundle: str | Path, manifest: Manifest, size: CacheSize) -> SlotDecoder:
    """Opens the twin of a bundle's graph. Raises like `open_decoder`."""
    path = Path(bundle) / GRAPH_FILE
    model = onnx.load(str(path), load_external_data=False)
    weights = _named_as_they_lie(model, path.parent)
    for node in nodes_of(model):
        if node.op_type == "MatMulNBits":
            _set_exact(node)
    for node in _attentions(model):
        _unround_cache(node)
    kept = {name for node in _attentions(model) for name in (*node.input[3:5], *node.output[1:3])}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.name in kept and value.type.tensor_type.elem_type == TensorProto.INT8:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    plain = "float32" if manifest.cache_dtype == "int8" else manifest.cache_dtype
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / GRAPH_FILE).write_bytes(model.SerializeToString())
        config = {
            "session.model_external_initializers_file_folder_path": str(weights),
            # Of products that are fused only when the session opens
            "session.qdq_matmulnbits_accuracy_level": str(_EXACT),
        }
        twin = dataclasses.replace(manifest, cache_dtype=plain)
        return open_decoder(name, twin, size, config=config)


def _named_as_they_lie(model: onnx.ModelProto, folder: Path) -> Path:
    """The folder that the weight files really lie in, and their names there: in a hub's cache the
    bundle's files are links to others.
    """
    place = folder
    for tensor in tensors_of(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                target = (folder / entry.value).resolve()
                entry.value, place = target.name, target.parent
    return place


def _attentions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in nodes_of(model) if node.op_type == "GroupQueryAttention"]


def _set_exact(node: onnx.NodeProto) -> None:
    others = [attribute for attribute in node.attribute if attribute.name != "accuracy_level"]
    del node.attribute[:]
    node.attribute.extend([*others, onnx.helper.make_attribute("accuracy_level", _EXACT)])


def _unround_cache(node: onnx.NodeProto) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name not in _CACHE_ATTRIBUTES]
    if len(kept) == len(node.attribute):
        return
    del node.attribute[:]
    node.attribute.extend(kept)
    inputs = list(node.input)
    inputs[_SCALES] = []
    while inputs and not inputs[-1]:
        inputs.pop()
    del node.input[:]
    node.input.extend(inputs)
