"""Optimum as the second exporter, in its own environment (`make test-optimum`): real exports, and
prefixes over them.

torch is the other side throughout: greedy tokens with every text computed anew.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GemmaConfig, GemmaForCausalLM, PreTrainedModel
from transformers.cache_utils import DynamicCache
from typer.testing import CliRunner

from edgeprefix.export.adopt import adopt
from edgeprefix.export.cli.app import export_app, verify_app
from edgeprefix.runtime import Engine, Prefix, Request
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.prefix_file import PrefixLayer
from edgeprefix.runtime.errors import ExportError
from tiny import VOCABULARY, randomise, save_checkpoint, tiny_gpt2, tiny_llama, tiny_mistral

pytestmark = [pytest.mark.optimum]
PROMPTS = [
    "Where is the café?",
    "My account, please. I cannot log in and the parcel never came, what now?",
    "a",
    "fox",
]
TASKS = ["news", None, "mail", "news"]


def tiny_gemma() -> PreTrainedModel:
    """Optimum gives it no position ids: the graph counts its past, so rows of different lengths
    cannot share a run.
    """
    return randomise(
        GemmaForCausalLM(
            GemmaConfig(
                vocab_size=VOCABULARY,
                hidden_size=64,
                intermediate_size=96,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=16,
                max_position_embeddings=256,
                bos_token_id=0,
                eos_token_id=0,
                pad_token_id=1,
            )
        )
    )


BASES = {"gpt2": tiny_gpt2, "llama": tiny_llama, "mistral": tiny_mistral, "gemma": tiny_gemma}


@pytest.fixture(scope="module", params=BASES)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A base, and the bundle that `export decoder --backend optimum` makes of it."""
    folder = tmp_path_factory.mktemp(request.param)
    base, bundle = save_checkpoint(BASES[request.param](), folder / "base"), folder / "bundle"
    arguments = ["decoder", str(base), "--out", str(bundle), "--backend", "optimum"]
    result = CliRunner().invoke(export_app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert f"{request.param}, 2 layers, fp32" in result.output
    assert "optimum graph, grown cache" in result.output
    return base, bundle


def prefixes_for(manifest: Manifest) -> dict[str, Prefix]:
    random = np.random.default_rng(0)
    return {
        name: Prefix(
            name=name,
            base=manifest.base,
            layers=tuple(
                PrefixLayer(
                    *random.standard_normal((2, layer.kv_heads, length, layer.head_size)).astype(
                        np.float32
                    )
                )
                for layer in manifest.layers
            ),
        )
        for name, length in (("news", 5), ("mail", 11))
    }


def torch_greedy(
    model: PreTrainedModel, prefix: Prefix | None, ids: list[int], count: int
) -> list[int]:
    text = list(ids)
    for _ in range(count):
        cache = DynamicCache()
        for index, layer in enumerate(() if prefix is None else prefix.layers):
            cache.update(torch.tensor(layer.key[None]), torch.tensor(layer.value[None]), index)
        with torch.no_grad():
            text.append(
                int(model(torch.tensor([text]), past_key_values=cache).logits[0, -1].argmax())
            )
    return text[len(ids) :]


def test_parity_is_in_the_manifest_and_verify_agrees(pair: tuple[Path, Path]) -> None:
    base, bundle = pair
    manifest = Manifest.load(bundle)
    assert manifest.graph is not None
    assert manifest.graph.mixed is (manifest.model_type != "gemma")
    assert manifest.parity["max_abs"] < 1e-4
    result = CliRunner().invoke(verify_app, [str(bundle), "--base", str(base)])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("chunk_tokens", [128, 5])
def test_mixed_batches_with_prefixes_give_torchs_tokens(
    pair: tuple[Path, Path], chunk_tokens: int
) -> None:
    base, bundle = pair
    prefixes = prefixes_for(Manifest.load(bundle))
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    with Engine.load(
        bundle, max_batch=3, max_length=128, chunk_tokens=chunk_tokens, threads=1
    ) as engine:
        for prefix in prefixes.values():
            engine.load_prefix(prefix)
        requests = [
            Request(text, task=task, max_new_tokens=10, ignore_end=True)
            for text, task in zip(PROMPTS, TASKS, strict=True)
        ]
        got = [list(completion.tokens) for completion in engine.generate_many(requests)]
        wanted = [
            torch_greedy(model, prefixes.get(task or ""), engine.tokenizer.encode_piece(text), 10)
            for text, task in zip(PROMPTS, TASKS, strict=True)
        ]
    assert got == wanted


def test_an_export_without_a_past_is_refused(tmp_path: Path) -> None:
    from optimum.exporters.onnx import main_export

    base = save_checkpoint(tiny_llama(), tmp_path / "base")
    main_export(
        str(base), output=str(tmp_path / "onnx"), task="text-generation", do_validation=False
    )
    with pytest.raises(ExportError, match="no past_key_values.*text-generation-with-past"):
        adopt(tmp_path / "onnx", tmp_path / "bundle", base=base)
