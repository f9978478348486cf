"""`export decoder`: what stands in the folder, what is refused, and that nothing is ever
half-written.
"""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

import edgeprefix.export.bundle as bundle_module
from edgeprefix.base.checkpoint import Checkpoint
from edgeprefix.export import export_decoder, verify
from edgeprefix.export.generation_defaults import say_dropped_defaults
from edgeprefix.export.parity import BOUNDS, Bounds
from edgeprefix.runtime.contracts.manifest import LayerShape, Manifest, bundle_files
from edgeprefix.runtime.errors import (
    BaseMismatchError,
    CheckpointError,
    ExportError,
    OutputError,
    ParityError,
)
from tiny import save_checkpoint, tiny_llama


@pytest.fixture(scope="module")
def exported(llama_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "llama"
    seen: list[str] = []
    export_decoder(llama_base, out, progress=lambda stage, done: seen.append(stage))
    assert tuple(dict.fromkeys(seen)) == bundle_module.STAGES
    return out


def test_what_stands_in_a_bundle(exported: Path, llama_base: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == [
        "decoder.onnx", "decoder.onnx.data", "manifest.json", "tokenizer.json",
    ]  # fmt: skip
    manifest = Manifest.load(exported)
    manifest.check_files(exported, hashes=True)
    assert manifest.model_type == "llama"
    assert manifest.layers == (
        LayerShape(kv_heads=2, head_size=16),
        LayerShape(kv_heads=2, head_size=16),
    )
    assert (manifest.vocabulary, manifest.max_positions, manifest.precision) == (384, 256, "fp32")
    assert (manifest.end_ids, manifest.begin_id, manifest.pad_id) == ((0,), 0, 1)
    assert manifest.base.name == llama_base.name
    assert manifest.parity["passed"] is True
    assert manifest.parity["relative"] < 1e-5
    assert "transformers" in manifest.made_with
    assert Tokenizer.from_file(str(exported / "tokenizer.json")).encode("fox").ids


def test_an_existing_bundle_is_refused_without_force(exported: Path, llama_base: Path) -> None:
    before = Manifest.load(exported)
    with pytest.raises(OutputError, match="exists already.*--force"):
        export_decoder(llama_base, exported)
    assert Manifest.load(exported) == before


def test_a_failed_export_leaves_the_old_bundle(
    exported: Path, gpt2_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk while the weights are written: one clear error, the old bundle intact, nothing
    beside it.
    """
    before = Manifest.load(exported)

    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundle_module, "write_model", full_disk)
    with pytest.raises(OutputError, match="No space left on device"):
        export_decoder(gpt2_base, exported, force=True)
    assert Manifest.load(exported) == before
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]


def test_a_graph_that_differs_from_torch_is_not_written(
    llama_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BOUNDS, "fp32", Bounds(relative=1e-12))  # type: ignore[arg-type]
    with pytest.raises(
        ParityError, match=r"differs from torch: relative difference .* is over 1e-12"
    ):
        export_decoder(llama_base, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_force_replaces_a_bundle_and_nothing_else(gpt2_base: Path, tmp_path: Path) -> None:
    """A damaged bundle counts as one; a folder with anything of the user's does not."""
    out = tmp_path / "bundle"
    out.mkdir()
    for name in ("manifest.json", "decoder.onnx", "decoder.onnx.data", "prefix.safetensors"):
        (out / name).write_text("old")
    with pytest.raises(OutputError, match=r"bundle holds prefix\.safetensors, which"):
        export_decoder(gpt2_base, out, force=True)
    (out / "prefix.safetensors").unlink()
    manifest = export_decoder(gpt2_base, out, force=True, precision="int8")
    assert manifest.model_type == "gpt2"
    assert bundle_files(out)
    assert set(bundle_files(out)) >= {path.name for path in out.iterdir()}


def test_force_leaves_a_base_alone(gpt2_base: Path) -> None:
    before = sorted(path.name for path in gpt2_base.iterdir())
    with pytest.raises(OutputError, match=r"holds config\.json, .* which this command does not"):
        export_decoder(gpt2_base, gpt2_base, force=True)
    assert sorted(path.name for path in gpt2_base.iterdir()) == before


def test_verify_tells_another_base(exported: Path, llama_base: Path, tmp_path: Path) -> None:
    """One changed weight makes another base."""
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] += 0.01
    other = save_checkpoint(model, tmp_path / "other")
    with pytest.raises(BaseMismatchError, match="different weights"):
        verify(exported, other)


def test_verify_sees_a_damaged_weight(exported: Path, llama_base: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(exported, bundle)
    data = bytearray((bundle / "decoder.onnx.data").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4096] = bytes(4096)
    (bundle / "decoder.onnx.data").write_bytes(data)
    report = verify(bundle, llama_base)
    assert not report.passed
    assert "FAILED: relative difference" in report.to_text()
    assert report.to_json()["passed"] is False


def change_config(base: Path, target: Path, **changes: object) -> Path:
    shutil.copytree(base, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | changes))
    return target


def damaged(base: Path, target: Path, name: str, content: bytes | int | None) -> Path:
    """A copy whose file has this content, is shorter by so many bytes, or is not there."""
    shutil.copytree(base, target)
    whole = (target / name).read_bytes()
    (target / name).unlink()
    if content is not None:
        (target / name).write_bytes(whole[:content] if isinstance(content, int) else content)
    return target


def test_bases_that_cannot_be_exported(llama_base: Path, tmp_path: Path) -> None:
    cases: list[tuple[Path | str, type[Exception], str]] = [
        (tmp_path / "nowhere" / "else", CheckpointError, "no such folder"),
        (llama_base / "config.json", CheckpointError, "is a file; give the checkpoint's folder"),
        (
            change_config(llama_base, tmp_path / "t5", model_type="t5", is_encoder_decoder=True),
            ExportError,
            "encoder-decoder",
        ),
        (
            change_config(llama_base, tmp_path / "vit", model_type="vit"),
            ExportError,
            "no causal language model of type 'vit'",
        ),
        (
            change_config(
                llama_base, tmp_path / "gptq", quantization_config={"quant_method": "gptq"}
            ),
            ExportError,
            r"already quantised \(gptq\)",
        ),
        (
            change_config(llama_base, tmp_path / "deep", num_hidden_layers=3),
            CheckpointError,
            "lacks .* of the model's tensors",
        ),
    ]
    cases += [
        (
            change_config(
                llama_base, tmp_path / "4bit", quantization_config={"load_in_4bit": True}
            ),
            ExportError,
            "already quantised",
        ),
        (
            change_config(llama_base, tmp_path / "heads", num_attention_heads=7),
            CheckpointError,
            "not a multiple of the number",
        ),
        (
            change_config(llama_base, tmp_path / "mamba", model_type="mamba"),
            ExportError,
            (
                "mamba cannot be exported: its linear-attention or state-space layers keep a state "
                "of another kind"
            ),
        ),
        (
            change_config(llama_base, tmp_path / "bert", model_type="bert"),
            ExportError,
            "bert cannot be exported: it is an encoder",
        ),
        (
            damaged(llama_base, tmp_path / "json", "config.json", b"{"),
            CheckpointError,
            "config.json cannot be read",
        ),
        (
            damaged(llama_base, tmp_path / "bare", "model.safetensors", None),
            CheckpointError,
            r"has no \*\.safetensors weights",
        ),
        (
            damaged(llama_base, tmp_path / "cut", "model.safetensors", -1000),
            CheckpointError,
            "is truncated: .* bytes are missing",
        ),
        (
            damaged(llama_base, tmp_path / "words", "tokenizer.json", b"{}"),
            CheckpointError,
            "tokenizer.json cannot be read",
        ),
    ]
    (tmp_path / "empty").mkdir()
    cases.append((tmp_path / "empty", CheckpointError, "has no config.json"))
    for base, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            export_decoder(base, tmp_path / "bundle")
        assert "\n" not in str(caught.value)
        assert not [path for path in tmp_path.iterdir() if "bundle" in path.name]


def test_a_base_without_tokenizer_or_precision(llama_base: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(llama_base, bare, ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        export_decoder(bare, tmp_path / "bundle")
    with pytest.raises(
        ExportError, match="precision 'int3' is unknown; choose one of fp32, fp16, int8, int4"
    ):
        export_decoder(llama_base, tmp_path / "bundle", precision="int3")


def test_the_bases_own_generation_defaults_are_named(
    llama_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    facts = {"temperature": 0.6, "max_length": 4096, "top_k": 50, "repetition_penalty": 1.05}
    (tmp_path / "generation_config.json").write_text(json.dumps(facts | {"eos_token_id": 0}))
    say_dropped_defaults(Checkpoint(tmp_path, "chatty").generation_settings(), "chatty")
    said = "base chatty: its generation settings ask for temperature 0.6, "
    assert said + "repetition_penalty 1.05, max_length 4096; a bundle holds no" in caplog.text
    caplog.clear()
    say_dropped_defaults(Checkpoint(llama_base, "plain").generation_settings(), "plain")
    assert not caplog.text


def test_the_manifest_has_the_tokenizers_special_tokens(llama_base: Path, tmp_path: Path) -> None:
    export_decoder(llama_base, tmp_path / "bundle", verify=False)
    known = Manifest.load(tmp_path / "bundle").special_tokens
    assert known == {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}
