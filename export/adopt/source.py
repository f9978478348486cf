"""The files of an ONNX export: which graph of the folder is meant, and what other files belong to
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from edgeprefix.export.protos import tensors_of
from edgeprefix.runtime.contracts.files import read_json
from edgeprefix.runtime.contracts.manifest import GRAPH_FILE, MANIFEST_FILE, TOKENIZER_FILE
from edgeprefix.runtime.contracts.regular_file import require_regular_files
from edgeprefix.runtime.errors import CheckpointError, ExportError

_SUBFOLDER = "onnx"  # of transformers.js and onnx-community repositories
_USUAL = ("model.onnx", "decoder_model_merged.onnx", "decoder_with_past_model.onnx")
_GENAI_CONFIG = "genai_config.json"


@dataclass(frozen=True, eq=False)
class Source:
    """A graph of an export, its weights unread when they lie in files of their own."""

    path: Path
    model: onnx.ModelProto
    data: tuple[str, ...]
    """Names of the files beside it that hold weights."""

    @property
    def exporter(self) -> str:
        """Who made it, as far as it shows."""
        if self._beside(_GENAI_CONFIG):
            return "onnxruntime-genai"
        if self.path.parent.name == _SUBFOLDER and not (self.path.parent / "config.json").is_file():
            return "transformers.js"
        return (
            "optimum"
            if self.model.producer_name == "pytorch"
            else self.model.producer_name or "unknown"
        )

    @property
    def model_type(self) -> str | None:
        """transformers' name of the architecture, None when no configuration stands beside the
        graph.
        """
        for name, keys in ((_GENAI_CONFIG, ("model", "type")), ("config.json", ("model_type",))):
            if path := self._beside(name):
                found: Any = read_json(path, CheckpointError, missing=f"{path} is missing")
                for key in keys:
                    found = found.get(key) if isinstance(found, dict) else None
                if isinstance(found, str):
                    return found
        return None

    def _beside(self, name: str) -> Path | None:
        """A file in the graph's folder, or in the folder that holds the subfolder `onnx`."""
        folders = (
            (self.path.parent, self.path.parent.parent)
            if self.path.parent.name == _SUBFOLDER
            else (self.path.parent,)
        )
        return next((folder / name for folder in folders if (folder / name).is_file()), None)


def open_source(folder: str | Path, file: str | None = None) -> Source:
    """Finds and reads the graph. `file` is its name, needed where a folder holds several
    precisions.

    Raises CheckpointError when there is none, or several without a usual name, or it cannot be
    read.
    """
    path = _find(Path(folder), file)
    try:
        require_regular_files(path.parent)
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's and onnx's errors share no base class but Exception
        raise CheckpointError(
            f"{path} cannot be read as an ONNX model: {_first_line(error)}"
        ) from error
    return Source(path=path, model=model, data=_data_files(model, path))


def _find(folder: Path, file: str | None) -> Path:
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file; give its folder, and --file {folder.name}")
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; give the folder of an ONNX export")
    found = [*sorted(folder.glob("*.onnx")), *sorted((folder / _SUBFOLDER).glob("*.onnx"))]
    names = ", ".join(str(path.relative_to(folder)) for path in found)
    if file is not None:
        chosen = [path for path in (folder / file, folder / _SUBFOLDER / file) if path.is_file()]
        if not chosen:
            raise CheckpointError(f"{folder} has no {file}; it has {names or 'no .onnx file'}")
        return chosen[0]
    usual = [path for name in _USUAL for path in found if path.name == name] or (
        found if len(found) == 1 else []
    )
    if not usual:
        raise CheckpointError(
            f"{folder} holds {names}; choose one with --file NAME"
            if found
            else (
                f"{folder} holds no .onnx file, neither does its subfolder {_SUBFOLDER}; "
                "give the folder of an ONNX export"
            )
        )
    return usual[0]


def _data_files(model: onnx.ModelProto, path: Path) -> tuple[str, ...]:
    """Names of the weight files, which must stand beside the graph, as in a bundle."""
    locations = {
        entry.value
        for tensor in tensors_of(model)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for location in sorted(locations):
        if Path(location).name != location or location in (
            GRAPH_FILE,
            MANIFEST_FILE,
            TOKENIZER_FILE,
        ):
            raise ExportError(
                f"{path} keeps weights in {location!r}, which cannot stand beside a bundle's graph"
            )
        if not (path.parent / location).is_file():
            raise CheckpointError(
                f"{path} keeps weights in {location}, which is missing; download or export it again"
            )
    return tuple(sorted(locations))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
