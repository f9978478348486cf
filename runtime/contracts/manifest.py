"""The bundle's manifest: what the runtime must know about a graph, specified in docs/bundle.md.

A bundle is a folder with `decoder.onnx`, its external data, `tokenizer.json` and `manifest.json`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprefix.runtime.contracts.files import read_json, sha256_of_file, write_atomic
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.contracts.past_graph import PastGraph
from edgeprefix.runtime.contracts.positions import RELATIVE, Positions
from edgeprefix.runtime.errors import BundleError

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
GRAPH_FILE = "decoder.onnx"
TOKENIZER_FILE = "tokenizer.json"
CACHE_SCALES_FILE = "cache.safetensors"
"""Of a bundle with an int8 cache (cache_scales.py)."""
PRECISIONS = ("fp32", "fp16", "int8", "int4")
CACHE_DTYPES = ("float32", "float16", "int8")


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """One attention layer's cache: [B, kv_heads, C, head_size]; `window` in tokens, None when it
    sees everything.
    """

    kv_heads: int
    head_size: int
    window: int | None = None


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """Size in bytes and SHA-256 of one of the bundle's files."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All facts about a bundle that are not in its graph."""

    base: BaseIdentity
    model_type: str
    """transformers' name of the architecture."""
    layers: tuple[LayerShape, ...]
    vocabulary: int
    """V, the width of the logits."""
    max_positions: int
    """Positions that the base can address: prefix, prompt and new tokens together."""
    precision: str
    """Of the weights: fp32, fp16, int8 or int4."""
    cache_dtype: str = "float32"
    end_ids: tuple[int, ...] = ()
    """Token ids that end a text; the first closes a training target."""
    begin_id: int | None = None
    pad_id: int | None = None
    chat_template: str | None = None
    positions: Positions | None = None
    """What positions do to keys, so that a prefix can be moved; None in bundles that do not say."""
    graph: PastGraph | None = None
    """How a graph of another exporter takes its past; None for edgeprefix's own."""
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    """By file name; everything in the bundle but the manifest."""
    parity: Mapping[str, Any] = field(default_factory=dict)
    """What `verify` found when the bundle was made."""
    made_with: Mapping[str, str] = field(default_factory=dict)
    """Versions of the packages that exported it."""

    def save(self, folder: str | Path) -> None:
        """Writes manifest.json atomically."""
        data = dataclasses.asdict(self) | {
            "format_version": FORMAT_VERSION,
            "base": self.base.to_json(),
        }
        write_atomic(
            Path(folder) / MANIFEST_FILE,
            (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode(),
        )

    @classmethod
    def load(cls, folder: str | Path) -> Manifest:
        """Reads and checks a bundle's manifest. Raises BundleError when it is missing, damaged or
        of an unknown version.
        """
        path = Path(folder) / MANIFEST_FILE
        remedy = f"make one with `edgeprefix export decoder BASE --out {folder}`"
        missing = f"{folder} is no bundle: it has no {MANIFEST_FILE}; {remedy}"
        data = read_json(path, BundleError, missing=missing, remedy="; export the bundle again")
        return cls.from_json(data, source=str(path))

    @classmethod
    def from_json(cls, data: Any, *, source: str = MANIFEST_FILE) -> Manifest:
        """Checks and converts a manifest's JSON value. Raises BundleError; unknown fields are
        ignored (MAY).
        """
        version = data.get("format_version") if isinstance(data, dict) else None
        if version != FORMAT_VERSION:
            raise BundleError(
                f"{source}: format version {version!r} is unknown (this edgeprefix reads "
                f"{FORMAT_VERSION})"
            )
        try:
            return cls(**_fields(data))
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"{source} is not a valid manifest: {error}; export the bundle again"
            ) from error

    def check_files(self, folder: str | Path, *, hashes: bool = False) -> None:
        """Raises BundleError when a file is missing or has another size, or, with `hashes`, another
        content.

        Hashes are not checked by default: reading gigabytes of weights would dominate a cold start.
        """
        for name, record in self.files.items():
            path = Path(folder) / name
            size = path.stat().st_size if path.is_file() else None
            if size != record.bytes:
                found = "missing" if size is None else f"{size} bytes"
                raise BundleError(
                    f"{path} is {found}, the manifest says {record.bytes} bytes; export or copy "
                    "the bundle again"
                )
            if hashes and sha256_of_file(path) != record.sha256:
                raise BundleError(
                    f"{path} was altered: its SHA-256 is not the manifest's; export or copy the "
                    "bundle again"
                )


def bundle_files(folder: Path) -> tuple[str, ...]:
    """The files of a bundle that stands in `folder`, a damaged one too; empty when it is none."""
    if not (folder / MANIFEST_FILE).is_file():
        return ()
    usual = (MANIFEST_FILE, GRAPH_FILE, f"{GRAPH_FILE}.data", TOKENIZER_FILE, CACHE_SCALES_FILE)
    try:
        return (*usual, *Manifest.load(folder).files)
    except BundleError:
        return usual


def record_files(folder: str | Path) -> dict[str, FileRecord]:
    """Records of every file in a folder but the manifest, by name."""
    files = sorted(
        path for path in Path(folder).iterdir() if path.is_file() and path.name != MANIFEST_FILE
    )
    return {
        path.name: FileRecord(bytes=path.stat().st_size, sha256=sha256_of_file(path))
        for path in files
    }


def _fields(data: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name for field in dataclasses.fields(Manifest)}
    values = {key: value for key, value in data.items() if key in known}
    values["base"] = BaseIdentity.from_json(data["base"])
    values["layers"] = tuple(LayerShape(**layer) for layer in data["layers"])
    values["files"] = {
        _safe_name(name): FileRecord(**record) for name, record in data.get("files", {}).items()
    }
    values["end_ids"] = tuple(int(token) for token in data.get("end_ids", ()))
    values["graph"] = None if data.get("graph") is None else PastGraph.from_json(data["graph"])
    values["positions"] = _positions(data.get("positions"), len(values["layers"]))
    if (
        values["precision"] not in PRECISIONS
        or values.get("cache_dtype", "float32") not in CACHE_DTYPES
    ):
        raise ValueError(
            f"precision {values['precision']!r} with cache {values.get('cache_dtype')!r} is unknown"
        )
    if not values["layers"] or int(values["vocabulary"]) < 1 or int(values["max_positions"]) < 1:
        raise ValueError("layers, vocabulary and max_positions must be positive")
    return values


def _positions(data: Any, layers: int) -> Positions | None:
    positions = None if data is None else Positions.from_json(data)
    if positions is not None and positions.kind == RELATIVE and len(positions.layers) != layers:
        raise ValueError(f"positions of {len(positions.layers)} layers; the bundle has {layers}")
    return positions


def _safe_name(name: str) -> str:
    """A bundle's files stand directly in it: a manifest must not point elsewhere."""
    if not name or Path(name).name != name:
        raise ValueError(f"file name {name!r} leaves the bundle")
    return name
