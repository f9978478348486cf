"""Base identity: the same for every copy of a checkpoint, another for one changed weight."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoints import edit_json, shard
from safetensors.torch import load_file, save_file

from edgeprefix.base.identity import checkpoint_identity
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.errors import CheckpointError

GOLDEN = "27f3208321ba6bb5147a7a77bb17a57043cb80912831b60ae6501f3b0d12a179"


def test_shards_do_not_matter(llama_base: Path, copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    names = sorted(tensors)
    (copy / "model.safetensors").unlink()
    save_file(
        {name: tensors[name] for name in names[::2]}, copy / "model-00001-of-00002.safetensors"
    )
    save_file(
        {name: tensors[name] for name in names[1::2]}, copy / "model-00002-of-00002.safetensors"
    )
    assert checkpoint_identity(copy, name="x").sha256 == checkpoint_identity(llama_base).sha256


def test_one_changed_weight_changes_it(llama_base: Path, copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"][3] += torch.finfo(torch.float32).eps
    save_file(tensors, copy / "model.safetensors")
    before, after = checkpoint_identity(llama_base), checkpoint_identity(copy)
    assert before.weights_sha256 != after.weights_sha256
    assert (before.config_sha256, before.tokenizer_sha256) == (
        after.config_sha256,
        after.tokenizer_sha256,
    )


@pytest.mark.parametrize(
    ("key", "value", "same"), [("rope_theta", 5e5, False), ("transformers_version", "9", True)]
)
def test_only_facts_that_matter_count(
    llama_base: Path, copy: Path, key: str, value: object, same: bool
) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {key: value}))
    assert (checkpoint_identity(copy).sha256 == checkpoint_identity(llama_base).sha256) is same


def test_the_tokenizer_counts_but_not_its_layout(llama_base: Path, copy: Path) -> None:
    content = json.loads((copy / "tokenizer.json").read_text())
    (copy / "tokenizer.json").write_text(json.dumps(content, indent=8))
    assert checkpoint_identity(copy).sha256 == checkpoint_identity(llama_base).sha256
    content["model"]["merges"].pop()
    (copy / "tokenizer.json").write_text(json.dumps(content))
    assert (
        checkpoint_identity(copy).tokenizer_sha256
        != checkpoint_identity(llama_base).tokenizer_sha256
    )


def test_json_round_trip(llama_base: Path) -> None:
    identity = checkpoint_identity(llama_base)
    assert BaseIdentity.from_json(identity.to_json()) == identity
    with pytest.raises(ValueError, match="inconsistent"):
        BaseIdentity.from_json(identity.to_json() | {"sha256": "0" * 64})


def test_folders_that_are_no_checkpoint(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"has no config.json; give the folder of a Hugging Face checkpoint"
    ):
        checkpoint_identity(tmp_path)
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(CheckpointError, match="truncated: 10 bytes are missing"):
        checkpoint_identity(copy)
    weights.write_bytes(b"not safetensors at all")
    with pytest.raises(CheckpointError, match="no readable safetensors file"):
        checkpoint_identity(copy)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"has no \*.safetensors weights"):
        checkpoint_identity(copy)
    (copy / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="expected a JSON object"):
        checkpoint_identity(copy)


@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
def test_files_that_are_not_loaded_do_not_count(
    llama_base: Path, copy: Path, sharded: bool
) -> None:
    """Mistral's layout beside the shards, an adapter, and what macOS leaves on foreign disks."""
    if sharded:
        shard(copy)
    whole = (llama_base / "model.safetensors").read_bytes()
    (copy / "consolidated.safetensors").write_bytes(whole)
    (copy / "adapter_model.safetensors").write_bytes(whole)
    for name in ("._model.safetensors", "._model-00001-of-00002.safetensors", "._config.json"):
        (copy / name).write_bytes(b"\0\5\x16\7Mac OS X")
    assert checkpoint_identity(copy).sha256 == checkpoint_identity(llama_base).sha256


def test_an_index_is_believed_within_its_folder_only(copy: Path) -> None:
    shard(copy)
    (copy / "model-00002-of-00002.safetensors").rename(copy.parent / "outside.safetensors")
    with pytest.raises(
        CheckpointError, match="lacks model-00002-of-00002.safetensors, which model"
    ):
        checkpoint_identity(copy)
    index = copy / "model.safetensors.index.json"
    for name in ("../outside.safetensors", str(copy.parent / "outside.safetensors")):
        edit_json(index, weight_map={"model.norm.weight": name})
        with pytest.raises(CheckpointError, match=r"outside.*, which is outside the checkpoint's"):
            checkpoint_identity(copy)
    for damaged in ({}, {"weight_map": {}}, {"weight_map": {"a": 1}}, [1]):
        index.write_text(json.dumps(damaged))
        with pytest.raises(CheckpointError, match="names no files of weights"):
            checkpoint_identity(copy)


def test_identities_of_earlier_versions_hold(tmp_path: Path) -> None:
    """Prefixes and bundles out there name their base by it: this value never changes."""
    (tmp_path / "config.json").write_text('{"model_type": "llama", "dtype": "float32", "x": 1}')
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model": {"vocab": {"a": 0}}}')
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.arange(4, dtype=torch.int32)}
    save_file(tensors, tmp_path / "model.safetensors")
    assert checkpoint_identity(tmp_path).sha256 == GOLDEN
