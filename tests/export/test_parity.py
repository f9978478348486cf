"""The exporter's one promise: the graph's logits are torch's, for every architecture, however the runtime feeds it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel
from zoo import WINDOW, tiny_model

from edgeprefix.export.base import Base
from edgeprefix.export.bundle import build_graph, write_bundle
from edgeprefix.export.verify import verify
from edgeprefix.runtime.errors import ExportError
from edgeprefix.runtime.identity import BaseIdentity

# Both sides compute in fp32, in another order; a dropped bias or a wrong position is a thousand times larger.
TOLERANCE = 2e-5

# Model type → nodes that the graph may have: all that it has today, so that a pass that stops working shows.
ARCHITECTURES = {
    "llama": 27, "gpt2": 34, "mistral": 27, "qwen2": 29, "qwen3": 46, "phi3": 27, "opt": 51, "gemma2": 35, "gemma3_text": 59, "cohere2": 34,
    "gpt_neox": 108, "phi": 105, "gpt_oss": 102,
}  # fmt: skip


def in_memory(model: PreTrainedModel, folder: Path) -> Base:
    """A model that was never saved, as a base without a tokenizer."""
    identity = BaseIdentity(name=model.config.model_type, weights_sha256="0", config_sha256="0", tokenizer_sha256="0")
    return Base(folder=folder, identity=identity, model=model, tokenizer=None)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_logits_are_those_of_torch(model_type: str, tmp_path: Path) -> None:
    base = in_memory(tiny_model(model_type), tmp_path)
    layers, graph = build_graph(base)
    manifest = write_bundle(base, layers, graph, tmp_path, precision="fp32")
    report = verify(tmp_path, base)
    assert report.relative < TOLERANCE, report.to_text()
    assert report.top1 == 1.0, report.to_text()
    assert len(graph.graph) <= ARCHITECTURES[model_type]
    assert [case.name for case in report.cases] == ["prefill", "chunks", "decode", "prefix", "rows", "long"]
    if model_type == "mistral":
        assert {layer.window for layer in manifest.layers} == {WINDOW}


def test_the_model_is_as_before(tmp_path: Path) -> None:
    """Tracing swaps attention, rotation and head for a moment; afterwards nothing of it is left."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.models.llama import modeling_llama

    model = tiny_model("llama")
    rotation, implementation = modeling_llama.apply_rotary_pos_emb, model.config._attn_implementation
    ids = torch.arange(9)[None]
    before = model(ids).logits
    build_graph(in_memory(model, tmp_path))
    assert modeling_llama.apply_rotary_pos_emb is rotation
    assert model.config._attn_implementation == implementation
    assert "edgeprefix" not in ALL_ATTENTION_FUNCTIONS.valid_keys()
    assert torch.equal(model(ids).logits, before)


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [("mamba", "mamba cannot be exported: its forward failed"), ("deepseek_v2", "latent attention")],
)
def test_what_cannot_be_had_is_refused_with_the_reason(model_type: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=reason):
        build_graph(in_memory(tiny_model(model_type), tmp_path))
