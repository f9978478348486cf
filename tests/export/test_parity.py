"""The exporter's one promise: the graph's logits are torch's, for every architecture, however the
runtime feeds it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel
from zoo import WINDOW, tiny_model

from edgeprefix.base import Base
from edgeprefix.export.bundle import build_graph, write_bundle
from edgeprefix.export.trace import survey_layers
from edgeprefix.export.verify import verify
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.errors import ExportError

# Both sides compute in fp32, in another order; a dropped bias or a wrong position is a thousand
# times larger.
TOLERANCE = 4e-5

# Model type → nodes that the graph may have: all that it has today, so that a pass that stops
# working shows.
ARCHITECTURES = {
    "llama": 27,  # everything in the node
    "gpt2": 43,  # learned positions, LayerNorm, Conv1D
    "opt": 52,  # positions with an offset
    # Projections interleaved by head; a partial rotation that the kernel cannot do
    "gpt_neox": 110,
    "qwen3": 46,  # normalised queries and keys
    "gemma3_text": 59,  # two rotary tables, windows, scaled embeddings
    "gpt_oss": 104,  # experts, attention sinks
    "bloom": 84,  # an adapter, linear biases
    "phimoe": 120,  # windows that only the mask knows
}
MORE_ARCHITECTURES = {
    "mistral": 27,
    "qwen2": 29,
    "phi3": 27,
    "gemma2": 35,
    "cohere2": 34,
    "phi": 107,
    "falcon": 50,
    "mpt": 39,
    "gptj": 124,
    "xglm": 49,
    "gpt_neox_japanese": 32,
    "llama4_text": 192,
    "gemma4_text": 152,
    "gemma3n_text": 422,
    "gemma3": 200,
}


YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 10000.0,
}


def in_memory(model: PreTrainedModel, folder: Path) -> Base:
    """A model that was never saved, as a base without a tokenizer."""
    identity = BaseIdentity(
        name=model.config.model_type, weights_sha256="0", config_sha256="0", tokenizer_sha256="0"
    )
    return Base(folder=folder, identity=identity, model=model, tokenizer=None)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_logits_are_those_of_torch(model_type: str, tmp_path: Path) -> None:
    check_parity(model_type, ARCHITECTURES[model_type], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", MORE_ARCHITECTURES)
def test_logits_of_more_architectures(model_type: str, tmp_path: Path) -> None:
    check_parity(model_type, MORE_ARCHITECTURES[model_type], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("falcon", {"alibi": True}),
        ("llama", {"rope_parameters": YARN}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 24}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    ],
    ids=["falcon-alibi", "yarn", "biases-odd-head", "layer-scaling"],
)  # fmt: skip
def test_variants_of_an_architecture(
    model_type: str, changes: dict[str, object], tmp_path: Path
) -> None:
    check_parity(model_type, 200, tmp_path, **changes)


def check_parity(model_type: str, nodes: int, folder: Path, **changes: object) -> None:
    """Exports a tiny model and compares it with torch in every way in which the runtime
    feeds it.
    """
    base = in_memory(tiny_model(model_type, **changes), folder)
    layers, graph = build_graph(base)
    manifest = write_bundle(base, layers, graph, folder, precision="fp32")
    report = verify(folder, base)
    assert report.relative < TOLERANCE, report.to_text()
    assert report.top1 == 1.0, report.to_text()
    assert len(graph.graph) <= nodes
    assert [case.name for case in report.cases] == [
        "prefill",
        "chunks",
        "decode",
        "prefix",
        "rows",
        "long",
    ]
    if model_type == "mistral":
        assert {layer.window for layer in manifest.layers} == {WINDOW}


def test_the_model_is_as_before(tmp_path: Path) -> None:
    """Tracing swaps attention, rotation and head for a moment; afterwards nothing of it is left."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.models.llama import modeling_llama

    model = tiny_model("llama")
    rotation, implementation = (
        modeling_llama.apply_rotary_pos_emb,
        model.config._attn_implementation,
    )
    ids = torch.arange(9)[None]
    before = model(ids).logits
    build_graph(in_memory(model, tmp_path))
    assert modeling_llama.apply_rotary_pos_emb is rotation
    assert model.config._attn_implementation == implementation
    assert "edgeprefix" not in ALL_ATTENTION_FUNCTIONS.valid_keys()
    assert torch.equal(model(ids).logits, before)


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        (
            "mamba",
            (
                "mamba cannot be exported: its linear-attention or state-space layers keep a state "
                "of another kind"
            ),
        ),
        ("lfm2", "its convolution layers keep a state of another kind"),
        ("deepseek_v2", "latent attention"),
        ("doge", "a dynamic mask"),
        ("diffllama", "reads every key with two values"),
        ("openai-gpt", "without a cache of keys and values"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_reason(
    model_type: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=reason):
        build_graph(in_memory(tiny_model(model_type), tmp_path))


def test_an_adapter_leaves_the_class_as_it_was(tmp_path: Path) -> None:
    from transformers.models.bloom.modeling_bloom import BloomAttention

    model, forward = tiny_model("bloom"), BloomAttention.forward
    survey_layers(model)
    assert BloomAttention.forward is forward
