"""From a PEFT adapter's folder to a prefix: read, resolve the base, compare, and run the base where
that takes running.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from edgeprefix.base import Base, load_base
from edgeprefix.base.checkpoint import find_checkpoint
from edgeprefix.base.streaming import hollow_model
from edgeprefix.export.peft.config import (
    CONFIG_FILE,
    TENSOR_FILE,
    AdapterConfig,
    read_adapter_config,
)
from edgeprefix.export.peft.embeddings import run_over_embeddings
from edgeprefix.export.peft.fit import require_layers_fit, require_positions, require_width_fits
from edgeprefix.export.peft.kv_layout import unpack_layers
from edgeprefix.export.peft.tensors import read_prompt
from edgeprefix.export.trace import survey_layers
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.contracts.prefix_file import Prefix, PrefixLayer
from edgeprefix.runtime.contracts.prompt import template_fields
from edgeprefix.runtime.contracts.task_pack import TaskPack
from edgeprefix.runtime.errors import CheckpointError, ExportError


class _Source(NamedTuple):
    """Where the base is: a folder or hub id, and the hub's revision."""

    base: str | Path
    revision: str | None


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """What PEFT's folder does not say about its task."""

    task: str | None = None
    """Name of the task; None takes the folder's name."""
    prompt: str | None = None
    """Template that turns a row into the prompt; None feeds the text as it is."""
    task_id: int | None = None
    """Which task of a multitask adapter."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder is at least half of a PEFT adapter; what is missing is for
    `prefix_of_adapter` to say.
    """
    return any((folder / name).is_file() for name in (CONFIG_FILE, TENSOR_FILE))


def prefix_of_adapter(
    folder: Path,
    *,
    base: str | Path | None,
    revision: str | None = None,
    options: AdapterOptions,
) -> Prefix:
    """The adapter as a prefix of its base, in fp32: its greedy text is that of PEFT's generate over
    the base in fp32.

    `base` is a folder or hub id (`revision`: the hub's); None takes the one that the adapter names.
    Raises ExportError, CheckpointError, BaseMismatchError, TemplateError, PrefixFileError.
    """
    config = read_adapter_config(folder)
    pack = _task_pack(config, options)
    prompt = read_prompt(folder, config, task_id=options.task_id)
    source = _base_of(folder, config, revision) if base is None else _Source(base, revision)
    states = _computed_states if config.stores_embeddings else _stored_states
    identity, layers = states(folder, config, prompt, source)
    return Prefix(name=options.task or _name_of(folder), base=identity, layers=layers, pack=pack)


def _stored_states(
    folder: Path, config: AdapterConfig, prompt: Tensor, source: _Source
) -> tuple[BaseIdentity, tuple[PrefixLayer, ...]]:
    """Keys and values as the adapter stores them: of the base only the shape is needed, so its
    weights are hashed, not loaded.
    """
    found = find_checkpoint(source.base, revision=source.revision)
    identity = found.identity()
    base = Base(
        folder=found.folder, identity=identity, model=hollow_model(found.config()), tokenizer=None
    )
    layers = survey_layers(base.model)
    require_layers_fit(folder, config, prompt, identity, layers)
    require_positions(folder, config, identity, base.max_positions)
    return identity, unpack_layers(
        prompt.numpy(), layers=len(layers), heads=layers[0].shape.kv_heads
    )


def _computed_states(
    folder: Path, config: AdapterConfig, prompt: Tensor, source: _Source
) -> tuple[BaseIdentity, tuple[PrefixLayer, ...]]:
    """Keys and values that the base computes over the adapter's embeddings."""
    base = load_base(source.base, revision=source.revision)
    table: Any = base.model.get_input_embeddings()
    require_width_fits(folder, config, prompt, base.identity, int(table.weight.shape[1]))
    require_positions(folder, config, base.identity, base.max_positions)
    return base.identity, run_over_embeddings(base, survey_layers(base.model), prompt)


def _base_of(folder: Path, config: AdapterConfig, revision: str | None) -> _Source:
    """The base that the adapter names, in the revision that it names unless another is given.
    Raises ExportError or CheckpointError when there is none to be had.
    """
    if config.base is None:
        raise ExportError(
            f"{folder} does not say which base it was trained on; give it with --base"
        )
    stated = None if config.revision == "main" else config.revision
    if stated is not None and Path(config.base).expanduser().is_dir():
        raise ExportError(
            f"{folder} was trained on revision {stated} of {config.base}, which is a folder here; "
            "give the folder of that revision, or the model's hub id, with --base"
        )
    source = _Source(config.base, stated if revision is None else revision)
    try:
        find_checkpoint(source.base, revision=source.revision)
    except CheckpointError as error:
        raise CheckpointError(
            f"{folder} names its base, but {error}; or give the base with --base"
        ) from error
    return source


def _task_pack(config: AdapterConfig, options: AdapterOptions) -> TaskPack:
    recipe: dict[str, object] = {"method": config.kind, "source": "peft", "tokens": config.length}
    if config.peft_version is not None:
        recipe["peft"] = config.peft_version
    if options.task_id is not None:
        recipe["task_id"] = options.task_id
    if options.prompt is None:
        return TaskPack(recipe=recipe)
    template_fields(options.prompt)  # raises what is wrong with it before the base is loaded
    return TaskPack(prompt=options.prompt, recipe=recipe)


def _name_of(folder: Path) -> str:
    """The folder's name with what a task name may not hold turned into dashes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._") or "adapter"
