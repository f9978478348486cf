"""adapter_model.safetensors: the numbers of an adapter, all of them finite, in fp32.

PEFT saves what its prompt encoder gives, not the encoder: an MLP or LSTM (P_TUNING) and a
projection (PREFIX_TUNING) are folded into `prompt_embeddings` by save_pretrained already. Only
multitask adapters keep their factors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from edgeprefix.export.peft.config import MULTITASK, TENSOR_FILE, AdapterConfig
from edgeprefix.runtime.errors import ExportError

PROMPT = "prompt_embeddings"
_FACTORS = ("prefix_task_cols", "prefix_task_rows")
_PICKLES = ("adapter_model.bin", "adapter_model.pt")


def read_prompt(folder: Path, config: AdapterConfig, *, task_id: int | None = None) -> Tensor:
    """The virtual tokens [P, width] in fp32: keys and values of all layers in a row, or embeddings.

    `task_id` chooses among the tasks of a multitask adapter, and may be left out when there is one.
    Raises ExportError when tensors are missing, foreign, of a wrong shape or not finite.
    """
    tensors = _load(folder)
    names = (PROMPT, *_FACTORS) if config.kind == MULTITASK else (PROMPT,)
    _require_names(folder, tensors, names)
    prompt = tensors[PROMPT]
    if prompt.dim() != 2 or prompt.shape[0] != config.length:
        raise ExportError(
            f"{folder}: {PROMPT} has shape {list(prompt.shape)}, the configuration says "
            f"{config.length} virtual tokens; "
            "the two files do not belong together"
        )
    task = _chosen_task(folder, config, task_id)
    return (
        prompt * _task_matrix(folder, tensors, prompt, config, task)
        if config.kind == MULTITASK
        else prompt
    )


def _load(folder: Path) -> Mapping[str, Tensor]:
    path = folder / TENSOR_FILE
    if not path.is_file():
        raise ExportError(_no_tensors(folder))
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ExportError(
            f"{path} cannot be read: {error}; it is truncated or altered, copy it again"
        ) from error
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ExportError(
                f"{path}: {name} holds NaN or infinity, so its training diverged; take an earlier "
                "checkpoint"
            )
    return {name: tensor.to(torch.float32) for name, tensor in tensors.items()}


def _no_tensors(folder: Path) -> str:
    pickles = [name for name in _PICKLES if (folder / name).is_file()]
    if pickles:
        return (
            f"{folder} keeps its numbers in {pickles[0]}, a pickle, which can run any code and is "
            "never opened; "
            "load it with peft where you trust it and save it again: "
            "PeftModel.from_pretrained(base, folder).save_pretrained(folder) writes safetensors"
        )
    return (
        f"{folder} has no {TENSOR_FILE}: half an adapter; give the whole folder that "
        "save_pretrained() wrote"
    )


def _require_names(folder: Path, tensors: Mapping[str, Tensor], names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in tensors]
    if missing:
        raise ExportError(
            f"{folder / TENSOR_FILE} lacks {', '.join(missing)} (it has "
            f"{', '.join(sorted(tensors)[:3]) or 'nothing'}); "
            "save the adapter again with save_pretrained()"
        )
    foreign = sorted(set(tensors) - set(names))
    if foreign:
        raise ExportError(
            f"{folder / TENSOR_FILE} also holds {foreign[0]}: the base itself was changed "
            "(resized embeddings, say), which a "
            "prefix cannot carry; train the adapter on a base that is saved as it is"
        )


def _chosen_task(folder: Path, config: AdapterConfig, task_id: int | None) -> int:
    if config.kind != MULTITASK and task_id is not None:
        raise ExportError(
            f"{folder} is of type {config.kind} and holds one task; leave the task id out (it is "
            f"for {MULTITASK})"
        )
    if task_id is None and config.tasks > 1:
        raise ExportError(
            f"{folder} holds {config.tasks} tasks; choose one with --task-id 0…{config.tasks - 1}"
        )
    if task_id is not None and not 0 <= task_id < config.tasks:
        raise ExportError(
            f"{folder} has no task {task_id}; it holds {config.tasks}: --task-id "
            f"0…{config.tasks - 1}"
        )
    return task_id or 0


def _task_matrix(
    folder: Path, tensors: Mapping[str, Tensor], prompt: Tensor, config: AdapterConfig, task: int
) -> Tensor:
    """[P, width], the low-rank matrix by which a task scales the shared prompt, element by
    element.
    """
    columns, rows = (tensors[name] for name in _FACTORS)  # [tasks, P, rank], [tasks, rank, width]
    P, width = prompt.shape
    fits = columns.dim() == rows.dim() == 3 and columns.shape[2] == rows.shape[1]
    if (
        not fits
        or columns.shape[:2] != (config.tasks, P)
        or (rows.shape[0], rows.shape[2]) != (config.tasks, width)
    ):
        raise ExportError(
            f"{folder}: {_FACTORS[0]} {list(columns.shape)} and {_FACTORS[1]} {list(rows.shape)} "
            "are no factors of "
            f"{config.tasks} tasks for {P} virtual tokens of width {width}; save the adapter again"
        )
    return columns[task] @ rows[task]
