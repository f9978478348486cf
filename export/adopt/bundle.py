"""`export adopt`: from the folder of an ONNX export to a verified bundle, whole or not at all."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from edgeprefix.base import Base, load_base
from edgeprefix.base.quiet import quiet_transformers
from edgeprefix.export.adopt.precision import precision_of
from edgeprefix.export.adopt.rehearsal import rehearse
from edgeprefix.export.adopt.signature import Signature, read_signature
from edgeprefix.export.adopt.source import Source, open_source
from edgeprefix.export.bundle import base_manifest, verified_manifest
from edgeprefix.export.trace import survey_layers
from edgeprefix.export.verify import torch_side
from edgeprefix.runtime.contracts.files import atomic_folder, output_errors
from edgeprefix.runtime.contracts.manifest import (
    GRAPH_FILE,
    TOKENIZER_FILE,
    Manifest,
    bundle_files,
)
from edgeprefix.runtime.errors import CheckpointError, ExportError


def adopt(
    onnx_folder: str | Path,
    out: str | Path,
    *,
    base: str | Path,
    revision: str | None = None,
    file: str | None = None,
    link: bool = False,
    force: bool = False,
    text: str | Path | None = None,
    allow_loss: float | None = None,
) -> Manifest:
    """Makes a bundle of a decoder that another exporter wrote; the graph stays as it is.

    `base` is the checkpoint that it was exported from (`revision`: the hub's). `file` names the
    graph where the folder holds several. With `link` the files are hard links instead of copies: no
    space, but whoever changes one changes both. The bundle is compared with torch before it takes
    its place; `text` and `allow_loss` are those of `export_decoder`. An existing bundle is replaced
    only with `force`; any other folder stays. Raises CheckpointError, ExportError (names what the
    graph cannot do), ParityError, OutputError, DataError.

    >>> adopt("onnx/", "bundle", base="checkpoints/base", file="model_q4.onnx")  # doctest: +SKIP
    """
    source = open_source(onnx_folder, file)
    read_signature(source)  # what cannot be adopted is refused before the base is loaded
    with atomic_folder(out, ours=bundle_files, force=force) as folder:
        return adopt_into(
            folder,
            source,
            base=base,
            revision=revision,
            link=link,
            text=text,
            allow_loss=allow_loss,
        )


def adopt_into(
    folder: Path,
    source: Source,
    *,
    base: str | Path,
    revision: str | None = None,
    link: bool,
    text: str | Path | None = None,
    allow_loss: float | None = None,
) -> Manifest:
    """Fills an empty folder with the verified bundle of an export; else like `adopt`."""
    signature, loaded = read_signature(source), load_base(base, revision=revision)
    _require_same_kind(source, loaded)
    manifest = _taken(source, signature, loaded, folder, link=link)
    manifest.save(folder)
    expected = torch_side(folder, manifest, loaded, text=text)
    del loaded  # the graph is opened beside the logits, not beside the whole model
    return verified_manifest(folder, manifest, expected, allow_loss=allow_loss)


def _taken(
    source: Source, signature: Signature, base: Base, folder: Path, *, link: bool
) -> Manifest:
    """Tries the graph, then takes its files into the folder; the report of `verify` is not in the
    manifest yet.
    """
    with quiet_transformers():
        layers = survey_layers(base.model)
    shapes = [layer.shape for layer in layers]
    signature.require_layers(shapes, source)
    precision, dtype = precision_of(source), signature.cache_dtype
    graph = rehearse(source.path, signature, shapes, exporter=source.exporter, precision=precision)
    _take_files(source, base, folder, link=link)
    vocabulary = signature.vocabulary or int(base.config.vocab_size)
    manifest = base_manifest(
        base, layers, folder, vocabulary=vocabulary, precision=precision, cache_dtype=dtype
    )
    return replace(manifest, graph=graph)


def _require_same_kind(source: Source, base: Base) -> None:
    """Raises ExportError when the export says of itself that it is another architecture, or the
    base has no tokenizer.
    """
    ours, theirs = str(base.model.config.model_type), source.model_type
    if theirs is not None and theirs not in (ours, base.config.model_type):
        raise ExportError(
            f"{source.path} is an export of a {theirs}, the base {base.identity.name} is a "
            f"{ours}; give its own --base"
        )
    if base.tokenizer is None:
        raise CheckpointError(
            f"{base.folder} has no tokenizer (tokenizer.json); a bundle needs one: copy it into "
            "the checkpoint's folder"
        )


def _take_files(source: Source, base: Base, folder: Path, *, link: bool) -> None:
    """Graph and weights as they are, under the bundle's names; the tokenizer is the base's."""
    take = os.link if link else shutil.copyfile
    names = {source.path.name: GRAPH_FILE} | {name: name for name in source.data}
    for name, target in names.items():
        with output_errors(folder / target):
            # What a link leads to: of a hub's cache the link itself would dangle here
            take((source.path.parent / name).resolve(), folder / target)
    if base.tokenizer is not None:
        (folder / TOKENIZER_FILE).write_text(base.tokenizer.to_str(), encoding="utf-8")
