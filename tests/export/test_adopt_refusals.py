"""What a graph of another exporter cannot do is refused by name, before any weight is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from edgeprefix.export.adopt.signature import Signature, read_signature
from edgeprefix.export.adopt.source import Source
from edgeprefix.runtime.contracts.manifest import LayerShape
from edgeprefix.runtime.contracts.past_graph import GROWN, IN_PLACE
from edgeprefix.runtime.errors import ExportError

PAST = ["B", 2, "T", 16]
LONGER = ["B", 2, "T+S", 16]
LOGITS = {"logits": ["B", "S", 384]}
IDS = {"input_ids": ["B", "S"], "attention_mask": ["B", "T+S"]}
LAYER_IN = {f"past_key_values.0.{kind}": PAST for kind in ("key", "value")}
LAYER_OUT = {f"present.0.{kind}": LONGER for kind in ("key", "value")}
Shapes = dict[str, list[int | str]]


def read(
    inputs: Shapes,
    outputs: Shapes,
    *,
    nodes: Sequence[onnx.NodeProto] = (),
    past: int = TensorProto.FLOAT,
) -> Signature:
    def value(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
        floats = past if name.startswith(("past", "present")) else TensorProto.FLOAT
        kind = TensorProto.INT64 if name in ("input_ids", "attention_mask") else floats
        return helper.make_tensor_value_info(name, kind, shape)

    graph = helper.make_graph(
        list(nodes),
        "decoder",
        [value(*item) for item in inputs.items()],
        [value(*item) for item in outputs.items()],
    )
    return read_signature(Source(Path("model.onnx"), helper.make_model(graph), ()))


def test_a_plain_decoder_is_read() -> None:
    signature = read(IDS | LAYER_IN, LOGITS | LAYER_OUT)
    assert signature.inputs == ("attention_mask",)
    assert (signature.cache, signature.cache_dtype, signature.vocabulary) == (GROWN, "float32", 384)
    assert signature.heads == ((2, 16),)


@pytest.mark.parametrize(
    ("inputs", "outputs", "names"),
    [
        (IDS, LOGITS, "no past_key_values.*text-generation-with-past"),
        (
            IDS | LAYER_IN | {"encoder_hidden_states": ["B", "E", 64]},
            LOGITS | LAYER_OUT,
            "encoder_hidden_states.*encoder-dec",
        ),
        (
            IDS | {"past_key_values.0.decoder.key": PAST},
            LOGITS,
            r"0\.decoder\.key: it is part of an encoder-decoder",
        ),
        (
            IDS | LAYER_IN | {"pixel_values": ["B", 3, 8, 8]},
            LOGITS | LAYER_OUT,
            "takes pixel_values, which edgeprefix cannot",
        ),
        ({"inputs_embeds": ["B", "S", 64]} | LAYER_IN, LOGITS | LAYER_OUT, "no input_ids"),
        (
            IDS | LAYER_IN | {"past_conv.0": ["B", 64, 3]},
            LOGITS | LAYER_OUT,
            "a past named past_conv.0",
        ),
        (
            IDS | {"past_key_values.0.key_value": PAST},
            LOGITS | LAYER_OUT,
            "a past named past_key_values.0.key_value",
        ),
        (
            IDS | {"past_key_values.0.key": PAST},
            LOGITS | LAYER_OUT,
            r"lacks past_key_values\.0\.value",
        ),
        (IDS | LAYER_IN, LOGITS, r"lacks present\.0\.key"),
        (IDS | LAYER_IN, LAYER_OUT, "no logits"),
        (IDS | LAYER_IN, LAYER_OUT | {"logits": ["B", 1, 384]}, "logits of the last token only"),
        (
            IDS | LAYER_IN | {"input_ids": [1, "S"]},
            LOGITS | LAYER_OUT,
            "input_ids has the fixed shape",
        ),
        (
            IDS | {name: ["B", 2, 64, 16] for name in LAYER_IN},
            LOGITS | LAYER_OUT,
            "key has the fixed shape",
        ),
        (
            IDS | {name: ["BH", 16, "T"] for name in LAYER_IN},
            LOGITS | LAYER_OUT,
            "3 dimensions, expected 4",
        ),
    ],
)
def test_refusals(inputs: Shapes, outputs: Shapes, names: str) -> None:
    with pytest.raises(ExportError, match=names):
        read(inputs, outputs)


def test_a_past_of_other_numbers_is_refused() -> None:
    with pytest.raises(ExportError, match="keeps its past as int8"):
        read(IDS | LAYER_IN, LOGITS | LAYER_OUT, past=TensorProto.INT8)


def test_other_layers_are_refused() -> None:
    signature, source = (
        read(IDS | LAYER_IN, LOGITS | LAYER_OUT),
        Source(Path("model.onnx"), onnx.ModelProto(), ()),
    )
    with pytest.raises(ExportError, match="has 1 layers, the base 2"):
        signature.require_layers([LayerShape(kv_heads=2, head_size=16)] * 2, source)
    with pytest.raises(ExportError, match="2 key/value heads of 16, the base has 4 of 16"):
        signature.require_layers([LayerShape(kv_heads=4, head_size=16)], source)


def test_a_window_that_is_left_to_another_runtime_is_refused() -> None:
    node = helper.make_node(
        "GroupQueryAttention", list(LAYER_IN), list(LAYER_OUT), domain="com.microsoft"
    )
    signature = read(IDS | LAYER_IN, LOGITS | LAYER_OUT, nodes=[node])
    assert signature.cache == IN_PLACE
    with pytest.raises(
        ExportError,
        match="a sliding window of 12 tokens, which the graph leaves to its own runtime",
    ):
        signature.require_layers(
            [LayerShape(kv_heads=2, head_size=16, window=12)],
            Source(Path("m"), onnx.ModelProto(), ()),
        )
