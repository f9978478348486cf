"""The bundle's manifest: round trip, and damaged ones refused. Spec: docs/bundle.md."""

from __future__ import annotations

import json
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
