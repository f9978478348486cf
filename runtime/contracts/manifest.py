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

from edgeprefix.runtime.contracts.fields import Fields, whole
from edgeprefix.runtime.contracts.files import sha256_of_file, write_atomic
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.contracts.past_graph import PastGraph
from edgeprefix.runtime.contracts.positions import RELATIVE, Positions
from edgeprefix.runtime.contracts.regular_file import open_regular, require_regular_files
from edgeprefix.runtime.contracts.strict_json import read_document
from edgeprefix.runtime.errors import BundleError

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
LARGEST_BYTES = 64 << 20
"""A larger manifest is refused before it is read."""
GRAPH_FILE = "decoder.onnx"
TOKENIZER_FILE = "tokenizer.json"
CACHE_SCALES_FILE = "cache.safetensors"
"""Of a bundle with an int8 cache (cache_scales.py)."""
AS_STORED = "as-stored"
"""The precision of a bundle that holds the very steps of a quantised base's file."""
PRECISIONS = ("fp32", "fp16", "int8", "int4", AS_STORED)
CACHE_DTYPES = ("float32", "float16", "int8")

_LONGEST_NAME = 255


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
    """Of the weights, one of PRECISIONS."""
    cache_dtype: str = "float32"
    end_ids: tuple[int, ...] = ()
    """Token ids that end a text; the first closes a training target."""
    begin_id: int | None = None
    pad_id: int | None = None
    chat_template: str | None = None
    special_tokens: Mapping[str, str] | None = None
    """Texts of the tokenizer's own special tokens by the names that chat templates know (bos_token,
    eos_token, …); None in bundles that do not say.
    """
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
        of an unknown version, or something beside it is no regular file.
        """
        path = Path(folder) / MANIFEST_FILE
        remedy = f"make one with `edgeprefix export decoder BASE --out {folder}`"
        missing = f"{folder} is no bundle: it has no {MANIFEST_FILE}; {remedy}"
        try:
            with open_regular(path) as (file, size):
                require_regular_files(path.parent)
                if size > LARGEST_BYTES:
                    raise ValueError(f"{size} bytes are more than a manifest has")
                data = read_document(file.read(size))
        except FileNotFoundError as error:
            raise BundleError(missing) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BundleError(
                f"{path} cannot be read: {reason}; export the bundle again"
            ) from error
        return cls.from_json(data, source=str(path))

    @classmethod
    def from_json(cls, data: Any, *, source: str = MANIFEST_FILE) -> Manifest:
        """Checks and converts a manifest's JSON value. Raises BundleError; unknown fields are
        ignored (MAY).
        """
        version = data.get("format_version") if isinstance(data, dict) else None
        if type(version) is not int or version != FORMAT_VERSION:
            raise BundleError(
                f"{source}: format version {version!r} is unknown (this edgeprefix reads "
                f"{FORMAT_VERSION})"
            )
        try:
            return _read(data)
        except (TypeError, ValueError) as error:
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
            try:
                size = path.stat().st_size if path.is_file() else None
            except OSError as error:
                raise BundleError(f"{path} cannot be read: {error.strerror or error}") from error
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


def _read(data: Mapping[str, Any]) -> Manifest:
    """Raises ValueError that names what is wrong."""
    fields = Fields(data, "field ")
    layers = tuple(_layer(Fields(layer, "layer ")) for layer in fields.values("layers"))
    graph = data.get("graph")
    cache = fields.text("cache_dtype") if "cache_dtype" in data else CACHE_DTYPES[0]
    precision = fields.text("precision")
    end_ids = fields.values("end_ids") if "end_ids" in data else ()
    if precision not in PRECISIONS or cache not in CACHE_DTYPES:
        raise ValueError(f"precision {precision!r} with cache {cache!r} is unknown")
    if not layers:
        raise ValueError("layers, vocabulary and max_positions must be positive")
    return Manifest(
        base=BaseIdentity.from_json(data.get("base") or {}),
        model_type=fields.text("model_type"),
        layers=layers,
        vocabulary=_positive(fields, "vocabulary"),
        max_positions=_positive(fields, "max_positions"),
        precision=precision,
        cache_dtype=cache,
        end_ids=tuple(whole(token, "a token of 'end_ids'") for token in end_ids),
        begin_id=fields.count_or_none("begin_id"),
        pad_id=fields.count_or_none("pad_id"),
        chat_template=fields.text_or_none("chat_template"),
        special_tokens=_texts(fields) if data.get("special_tokens") is not None else None,
        positions=_positions(data.get("positions"), len(layers)),
        graph=None if graph is None else PastGraph.from_json(graph),
        files={
            _safe_name(name): _file_record(Fields(record, f"file {name!r} "))
            for name, record in fields.mapping("files").items()
        },
        parity=fields.mapping("parity"),
        made_with=fields.mapping("made_with"),
    )


def _texts(fields: Fields) -> dict[str, str]:
    texts = fields.mapping("special_tokens")
    return {name: Fields(texts, "special token ").text(name) for name in texts}


def _positive(fields: Fields, name: str) -> int:
    number = fields.count(name)
    if number < 1:
        raise ValueError("layers, vocabulary and max_positions must be positive")
    return number


def _layer(fields: Fields) -> LayerShape:
    return LayerShape(
        kv_heads=fields.count("kv_heads", least=1),
        head_size=fields.count("head_size", least=1),
        window=fields.count_or_none("window", least=1),
    )


def _file_record(fields: Fields) -> FileRecord:
    return FileRecord(bytes=fields.size("bytes"), sha256=fields.text("sha256"))


def _positions(data: Any, layers: int) -> Positions | None:
    positions = None if data is None else Positions.from_json(data)
    if positions is not None and positions.kind == RELATIVE and len(positions.layers) != layers:
        raise ValueError(f"positions of {len(positions.layers)} layers; the bundle has {layers}")
    return positions


def _safe_name(name: str) -> str:
    """A bundle's files stand directly in it: a manifest must not point elsewhere."""
    plain = name.isprintable() and len(name.encode()) <= _LONGEST_NAME
    if not plain or name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"file name {name[:_LONGEST_NAME]!r} leaves the bundle")
    return name
