"""A base from the hub, in a revision, against a hub on this machine and against its cache alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import edit_json, shard
from hub_server import Hub, serving
from huggingface_hub import constants

from edgeprefix.base import checkpoint_identity, find_checkpoint, load_base
from edgeprefix.export import export_decoder, export_prefix, verify
from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.errors import CheckpointError, UnsupportedBaseError
from edgeprefix.train import PrefixConfig, TrainConfig, train_prefix
from tiny import randomise, save_checkpoint, tiny_llama

COMMITS = {"main": "a" * 40, "v1": "b" * 40}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """org/model in two revisions of different weights, the newer one in shards, with what other
    programs want of it beside.
    """
    newest, first = tmp_path / "newest", tmp_path / "first"
    save_checkpoint(tiny_llama(num_hidden_layers=1), newest)
    save_checkpoint(randomise(tiny_llama(num_hidden_layers=1), seed=1), first)
    shard(newest)
    (newest / "consolidated.safetensors").write_bytes(b"of another program")
    (newest / "own.py").write_text("raise SystemExit('run')")
    (newest / "onnx").mkdir()
    (newest / "onnx" / "config.json").write_text("{}")
    (newest / "original").mkdir()
    (newest / "original" / "tokenizer.model").write_bytes(b"of another program")
    (newest / "additional_chat_templates").mkdir()
    (newest / "additional_chat_templates" / "default.jinja").write_text("hello")
    revisions = {"main": (COMMITS["main"], newest), "v1": (COMMITS["v1"], first)}
    revisions |= {commit: (commit, folder) for commit, folder in revisions.values()}
    with serving(Hub(revisions)) as found:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        template = found.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield found


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_the_configuration_comes_first_and_only_what_is_needed(hub: Hub) -> None:
    folder, name = find_checkpoint("org/model")
    assert (folder.name, name) == (COMMITS["main"], "org/model")
    assert hub.downloaded[0] == "config.json"
    assert set(hub.downloaded) == {
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "additional_chat_templates/default.jinja",
    }
    base = load_base("org/model")
    assert base.chat_template == "hello"
    assert base.identity.sha256 == checkpoint_identity(hub.revisions["main"][1]).sha256
    assert len(hub.downloaded) == len(set(hub.downloaded)), "something was fetched twice"


def test_what_is_no_base_is_refused_before_it_is_fetched(hub: Hub) -> None:
    edit_json(hub.revisions["main"][1] / "config.json", is_encoder_decoder=True)
    with pytest.raises(UnsupportedBaseError, match="it is an encoder-decoder"):
        find_checkpoint("org/model")
    assert hub.downloaded == ["config.json"]


def test_a_revision_is_another_base(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_base("org/model", revision="v1").identity
    assert first.sha256 == checkpoint_identity(hub.revisions["v1"][1]).sha256
    assert first.sha256 != load_base("org/model").identity.sha256
    assert load_base("org/model", revision=COMMITS["v1"]).identity == first
    offline(monkeypatch)  # the cache alone knows both
    assert load_base("org/model", revision="v1").identity == first
    assert load_base("org/model").identity.sha256 != first.sha256


def test_a_revision_goes_through_training_export_and_verify(hub: Hub, tmp_path: Path) -> None:
    rows = [{"input": f"Where {number}?", "target": "Rome"} for number in range(8)]
    result = train_prefix(
        "org/model", rows, rows, revision="v1", task="t", out=tmp_path / "run",
        prefix=PrefixConfig(length=3), train=TrainConfig(steps=1, precision="fp32"),
    )  # fmt: skip
    manifest = export_decoder("org/model", tmp_path / "bundle", revision="v1")
    assert result.base == manifest.base == load_base("org/model", revision="v1").identity
    prefix = export_prefix(
        tmp_path / "run", tmp_path / "t.safetensors", base="org/model", revision="v1"
    )
    assert prefix.base == manifest.base
    assert Prefix.load(tmp_path / "t.safetensors").base == manifest.base
    assert verify(tmp_path / "bundle", "org/model", revision="v1", prefix=prefix).passed


def test_what_the_cache_lacks_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="org/model, revision v2 is neither on this machine"):
        find_checkpoint("org/model", revision="v2")
    folder = find_checkpoint("org/model").folder
    offline(monkeypatch)
    with pytest.raises(
        CheckpointError, match="org/none is neither on this machine nor a model on the hub"
    ):
        find_checkpoint("org/none")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="org/model is neither .*we cannot find the req"):
        load_base("org/model")


def test_a_folder_has_no_revision(llama_base: Path) -> None:
    with pytest.raises(CheckpointError, match="on this machine, and revision v1 is one of the hub"):
        load_base(llama_base, revision="v1")


def test_a_model_without_safetensors_is_named(hub: Hub) -> None:
    folder = hub.revisions["v1"][1]
    shutil.move(folder / "model.safetensors", folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"has no \*\.safetensors weights"):
        load_base("org/model", revision="v1")
