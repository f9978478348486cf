"""An ONNX adapter on decoders that Optimum really exported, unmodified: `make test-optimum`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from native_ort import NativeSession, library
from test_llama_cpp import PROMPT, prefix_of
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache

from edgeprefix.export.formats.onnx_adapter import write_onnx_adapter
from tiny import save_checkpoint, tiny_gpt2, tiny_llama

pytestmark = pytest.mark.optimum


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_optimums_graph_runs_with_the_adapter(make: object, tmp_path: Path) -> None:
    """Python gives empty pasts, whose place the adapter takes; the native call gives none."""
    from optimum.exporters.onnx import main_export

    base = save_checkpoint(make(), tmp_path / "base")  # type: ignore[operator]
    main_export(
        str(base), output=tmp_path / "onnx", task="text-generation-with-past", do_validation=False
    )
    model = AutoModelForCausalLM.from_pretrained(base, torch_dtype=torch.float32).eval()
    prefix, graph = prefix_of(model, [7, 100, 9, 300, 42]), tmp_path / "onnx" / "model.onnx"
    write_onnx_adapter(prefix, tmp_path / "t.onnx_adapter")

    cache = DynamicCache()
    for index, layer in enumerate(prefix.layers):
        cache.update(torch.tensor(layer.key[None]), torch.tensor(layer.value[None]), index)
    with torch.no_grad():
        expected = model(torch.tensor([PROMPT]), past_key_values=cache).logits.numpy()

    session, adapter, options = (
        ort.InferenceSession(str(graph)),
        ort.LoraAdapter(),
        ort.RunOptions(),
    )
    adapter.Load(str(tmp_path / "t.onnx_adapter"))
    options.add_active_adapter(adapter)
    nodes = {node.name: node.shape for node in session.get_inputs()}
    length = prefix.length + len(PROMPT)
    every = {
        "input_ids": np.array([PROMPT]),
        "attention_mask": np.ones((1, length), np.int64),
        "position_ids": np.arange(prefix.length, length)[None],
    }
    inputs = {name: array for name, array in every.items() if name in nodes}
    empty = {
        name: np.zeros((1, shape[1], 0, shape[3]), np.float32)
        for name, shape in nodes.items()
        if name.startswith("past_key_values.")
    }
    np.testing.assert_allclose(
        session.run(["logits"], inputs | empty, options)[0], expected, atol=1e-4
    )
    if library() is not None:
        native = NativeSession(graph).run(inputs, "logits", tmp_path / "t.onnx_adapter")
        np.testing.assert_allclose(native, expected, atol=1e-4)
