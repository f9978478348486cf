"""The bundle's manifest: round trip, and damaged ones refused. Spec: docs/bundle.md."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.contracts.manifest import LayerShape, Manifest, record_files
from edgeprefix.runtime.errors import BundleError

BASE = BaseIdentity(
    name="b", weights_sha256="1" * 64, config_sha256="2" * 64, tokenizer_sha256="3" * 64
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "decoder.onnx").write_bytes(b"graph")
    manifest = Manifest(
        base=BASE,
        model_type="llama",
        layers=(LayerShape(kv_heads=2, head_size=16, window=8),),
        vocabulary=9,
        max_positions=64,
        precision="int8",
        end_ids=(0,),
        files=record_files(tmp_path),
        parity={"ok": True},
    )
    manifest.save(tmp_path)
    return tmp_path


def edit(bundle: Path, **changes: Any) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_round_trip(bundle: Path) -> None:
    manifest = Manifest.load(bundle)
    assert manifest.layers == (LayerShape(kv_heads=2, head_size=16, window=8),)
    assert (manifest.base, manifest.end_ids, manifest.parity) == (BASE, (0,), {"ok": True})
    manifest.check_files(bundle, hashes=True)
    edit(bundle, colour="green")
    assert Manifest.load(bundle) == manifest, "an unknown field may be there"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format version 2 is unknown"),
        ({"base": {}}, "base identity lacks"),
        ({"layers": []}, "must be positive"),
        ({"layers": [{"heads": 2}]}, "not a valid manifest"),
        ({"vocabulary": 0}, "must be positive"),
        ({"precision": "int3"}, "precision 'int3'"),
        ({"files": {"../x": {"bytes": 1, "sha256": ""}}}, "leaves the bundle"),
    ],
)
def test_damaged_manifests_are_refused(bundle: Path, changes: dict[str, Any], message: str) -> None:
    edit(bundle, **changes)
    with pytest.raises(BundleError, match=message):
        Manifest.load(bundle)


ODD: list[dict[str, Any]] = [
    {"base": []}, {"base": "b"}, {"base": {"name": 1}}, {"layers": {}}, {"layers": [1]},
    {"layers": [{"kv_heads": "2", "head_size": 16}]}, {"layers": [{"kv_heads": 2, "head_size": 0}]},
    {"layers": [{"kv_heads": True, "head_size": 16}]},
    {"layers": [{"kv_heads": 2, "head_size": 16, "window": -1}]},
    {"vocabulary": "9"}, {"vocabulary": 9.5}, {"vocabulary": None}, {"vocabulary": 10**30},
    {"max_positions": []}, {"precision": ["int8"]}, {"cache_dtype": {}}, {"model_type": 7},
    {"end_ids": 0}, {"end_ids": ["0"]}, {"end_ids": [-1]}, {"end_ids": [None]}, {"begin_id": "1"},
    {"pad_id": True}, {"chat_template": ["x"]}, {"parity": [1]}, {"made_with": "x"},
    {"files": [1]}, {"files": {"decoder.onnx": 5}}, {"files": {"decoder.onnx": {"bytes": "5"}}},
    {"files": {"decoder.onnx": {"bytes": -5, "sha256": ""}}}, {"files": {"..": {}}},
    {"files": {"a\0b": {"bytes": 1, "sha256": ""}}}, {"files": {"a" * 300: {}}},
    {"graph": []}, {"graph": {"exporter": "x", "cache": "grown", "inputs": 3}},
    {"graph": {"exporter": "x", "cache": "grown", "inputs": [], "mixed": "no", "many": True}},
    {"positions": {}}, {"positions": {"kind": "relative", "layers": ["0"], "rotations": []}},
    {"positions": {"kind": "relative", "layers": [], "rotations": [{"frequencies": ["1"]}]}},
    {"chat_template": "\ud83d"},
]  # fmt: skip


@pytest.mark.parametrize("changes", ODD, ids=[str(changes)[:60] for changes in ODD])
def test_whatever_a_field_holds_the_bundle_is_refused_by_name(
    bundle: Path, changes: dict[str, Any]
) -> None:
    edit(bundle, **changes)
    [name] = changes
    with pytest.raises(BundleError) as refused:
        Manifest.load(bundle)
    assert "manifest.json" in str(refused.value)
    if name != "chat_template":
        assert name.removesuffix("s").split("_")[0] in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, '{"format_version": 1, "format_version": 1}', "NaN", "\xff"],
)
def test_manifests_that_break_readers(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match="manifest.json cannot be read: "):
        Manifest.load(bundle)


def test_manifests_that_are_no_files(bundle: Path) -> None:
    path = bundle / "manifest.json"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleError, match="1099511627776 bytes are more than a manifest has"):
        Manifest.load(bundle)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BundleError, match="cannot be read: it is no regular file"):
        Manifest.load(bundle)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_anywhere_in_a_bundle_is_refused(bundle: Path) -> None:
    """Before ONNX Runtime or a tokenizer waits for its writer for ever."""
    for name in ("tokenizer.json", "decoder.onnx", "notes.txt"):
        (bundle / name).unlink(missing_ok=True)
        os.mkfifo(bundle / name)
        with pytest.raises(BundleError, match=f"cannot be read: {name} is no regular file"):
            Manifest.load(bundle)
        (bundle / name).unlink()


def test_unknown_fields_within_layers_may_be_there(bundle: Path) -> None:
    before = Manifest.load(bundle)
    layer = {"kv_heads": 2, "head_size": 16, "window": 8, "colour": "green"}
    record = {**dataclasses.asdict(before.files["decoder.onnx"]), "mode": 420}
    edit(bundle, layers=[layer], files={"decoder.onnx": record})
    assert Manifest.load(bundle) == before


def test_files_are_checked(bundle: Path) -> None:
    manifest = Manifest.load(bundle)
    (bundle / "decoder.onnx").write_bytes(b"grapH")
    manifest.check_files(bundle)
    with pytest.raises(BundleError, match="was altered"):
        manifest.check_files(bundle, hashes=True)
    (bundle / "decoder.onnx").write_bytes(b"gra")
    with pytest.raises(BundleError, match="is 3 bytes, the manifest says 5 bytes"):
        manifest.check_files(bundle)
    (bundle / "decoder.onnx").unlink()
    with pytest.raises(BundleError, match="is missing"):
        manifest.check_files(bundle)


def test_a_folder_without_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is no bundle.*edgeprefix export decoder BASE --out"):
        Manifest.load(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match="cannot be read"):
        Manifest.load(tmp_path)
