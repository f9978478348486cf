"""A decoder that works in place and is told lengths by an attention mask, as onnxruntime-genai's
builder writes them.

It is edgeprefix's own graph with another front: total lengths are the mask's row sums, and every
token gets logits [B, S, V].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def to_masked_graph(bundle: Path, folder: Path) -> Path:
    """Writes `folder/model.onnx` (and its weights) from a bundle of edgeprefix's own."""
    model = onnx.load(str(bundle / "decoder.onnx"))
    graph = model.graph
    kept = [value for value in graph.input if value.name not in ("total_lengths", "logit_rows")]
    mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "total"])
    (vocabulary,) = [
        value.type.tensor_type.shape.dim[1].dim_value
        for value in graph.output
        if value.name == "logits"
    ]
    del graph.input[:]
    graph.input.extend([*kept, mask])
    for node in graph.node:
        node.output[:] = ["flat_logits" if name == "logits" else name for name in node.output]
    numbers = {"axis": [1], "zero": 0, "one": 1, "last": [vocabulary]}
    graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), name) for name, value in numbers.items()
    )
    front = [
        helper.make_node("ReduceSum", ["attention_mask", "axis"], ["sums"], keepdims=0),
        helper.make_node("Cast", ["sums"], ["total_lengths"], to=TensorProto.INT32),
        helper.make_node("Shape", ["input_ids"], ["text_shape"]),
        helper.make_node("ReduceProd", ["text_shape"], ["tokens"], keepdims=0),
        helper.make_node("Range", ["zero", "tokens", "one"], ["logit_rows"]),
        helper.make_node("Concat", ["text_shape", "last"], ["logits_shape"], axis=0),
    ]
    nodes = [
        *front,
        *graph.node,
        helper.make_node("Reshape", ["flat_logits", "logits_shape"], ["logits"]),
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    for value in graph.output:
        if value.name == "logits":
            value.CopyFrom(
                helper.make_tensor_value_info(
                    "logits", TensorProto.FLOAT, ["batch", "tokens", vocabulary]
                )
            )
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(
        model,
        str(folder / "model.onnx"),
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=1024,
    )
    (folder / "genai_config.json").write_text('{"model": {"type": "llama"}}')
    return folder
