"""A base's identity is computed once, and never believed when anything has changed."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from edgeprefix.base import identity
from edgeprefix.base.identity import checkpoint_identity
from edgeprefix.base.identity_cache import remembered
from edgeprefix.runtime.contracts.identity import BaseIdentity


@pytest.fixture
def base(llama_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a checkpoint, old enough to be remembered, and an empty cache."""
    monkeypatch.setenv("EDGEPREFIX_CACHE", str(tmp_path / "cache"))
    copy = shutil.copytree(llama_base, tmp_path / "base")
    time.sleep(2.1)  # longer than the coarsest file system's clock
    return copy


def test_it_is_computed_once(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = checkpoint_identity(base)
    monkeypatch.setattr(identity, "_hashes", lambda folder: pytest.fail("hashed again"))
    assert checkpoint_identity(base) == first
    assert checkpoint_identity(base, name="another").sha256 == first.sha256


def test_a_changed_weight_of_equal_size_is_seen(base: Path) -> None:
    before = checkpoint_identity(base)
    file = base / "model.safetensors"
    size, times = file.stat().st_size, file.stat().st_mtime_ns
    tensors = load_file(file)
    tensors["model.norm.weight"][3] += 1.0
    save_file(tensors, file, metadata={"format": "pt"})
    os.utime(file, ns=(times, times))  # not even a time that was set back deceives it
    assert file.stat().st_size == size
    assert checkpoint_identity(base).weights_sha256 != before.weights_sha256


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_changed_small_file_is_seen(name: str, base: Path) -> None:
    before = checkpoint_identity(base)
    content = json.loads((base / name).read_text())
    (base / name).write_text(json.dumps(content | {"new": 1}))
    assert checkpoint_identity(base).sha256 != before.sha256


def test_another_checkpoint_in_its_place_is_seen(base: Path, gpt2_base: Path) -> None:
    before = checkpoint_identity(base)
    shutil.rmtree(base)
    shutil.copytree(gpt2_base, base)
    assert checkpoint_identity(base).sha256 != before.sha256


def test_what_changed_a_moment_ago_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPREFIX_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "weights"
    file.write_bytes(b"1")
    remembered(tmp_path, [file], lambda: {"hash": "1"})
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[1]", b'{"rules": 1}'], ids=["empty", "bytes", "list", "half"]
)
def test_a_damaged_cache_is_ignored(content: bytes, base: Path, tmp_path: Path) -> None:
    first = checkpoint_identity(base)
    (entry,) = (tmp_path / "cache" / "identities").iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(content)
    assert checkpoint_identity(base) == first
    assert entry.read_bytes() == whole


def test_a_cache_that_cannot_be_written_does_no_harm(
    base: Path, llama_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("EDGEPREFIX_CACHE", str(tmp_path / "file"))
    found: BaseIdentity = checkpoint_identity(base)
    assert found.sha256 == checkpoint_identity(llama_base).sha256
