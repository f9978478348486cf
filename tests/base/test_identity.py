"""Base identity: the same for every copy of a checkpoint, another for one changed weight."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgeprefix.base.identity import checkpoint_identity
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.errors import CheckpointError


@pytest.fixture
def copy(llama_base: Path, tmp_path: Path) -> Path:
    return shutil.copytree(llama_base, tmp_path / "copy")


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
