"""adapter_config.json: what kind of adapter a folder holds, and what is none that a prefix can be
made of.

PEFT's prompt-learning methods put virtual tokens before the text and leave the base as it is: what
they learn is keys and values, or embeddings that the base turns into keys and values. Everything
else changes the base's own layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprefix.runtime.contracts.files import read_json
from edgeprefix.runtime.errors import ExportError

CONFIG_FILE = "adapter_config.json"
TENSOR_FILE = "adapter_model.safetensors"

STORES_KEYS_AND_VALUES = ("PREFIX_TUNING", "CARTRIDGE")
STORES_EMBEDDINGS = ("PROMPT_TUNING", "P_TUNING", "CPT", "MULTITASK_PROMPT_TUNING")
MULTITASK = "MULTITASK_PROMPT_TUNING"
KINDS = (*STORES_KEYS_AND_VALUES, *STORES_EMBEDDINGS)
"""The values of `peft_type` that a prefix can be made of."""


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """The facts of an adapter that decide what its numbers mean. Those that PEFT may leave open are
    None.
    """

    kind: str
    """One of KINDS."""
    length: int
    """P, the virtual tokens."""
    token_dim: int | None
    """Keys' and values' heads times head size in one layer (keys and values), or the width of an
    embedding (embeddings).
    """
    heads: int | None
    """H, key/value heads of a layer."""
    layers: int | None
    """L."""
    tasks: int
    """Tasks that a multitask adapter holds; 1 for the others."""
    base: str | None
    """The base's folder or hub id at training time."""
    revision: str | None
    """The hub revision of the base, None when it was the newest."""
    peft_version: str | None

    @property
    def stores_embeddings(self) -> bool:
        """Whether the base has to run over the virtual tokens to give keys and values."""
        return self.kind in STORES_EMBEDDINGS


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Reads and checks a folder's adapter_config.json. Raises ExportError, naming what makes it
    unfit.
    """
    facts = _facts(folder / CONFIG_FILE)
    kind = facts.get("peft_type")
    if kind not in KINDS:
        raise ExportError(f"{folder} is a PEFT adapter of type {kind}, {_why_not(str(kind))}")
    _require_language_model(folder, facts)
    return AdapterConfig(
        kind=str(kind),
        length=_number(folder, facts, "num_virtual_tokens"),
        token_dim=_optional_number(folder, facts, "token_dim"),
        heads=_optional_number(folder, facts, "num_attention_heads"),
        layers=_optional_number(folder, facts, "num_layers"),
        tasks=_number(folder, facts, "num_tasks") if kind == MULTITASK else 1,
        base=facts.get("base_model_name_or_path") or None,
        revision=facts.get("revision") or None,
        peft_version=facts.get("peft_version"),
    )


def _facts(path: Path) -> Mapping[str, Any]:
    missing = (
        f"{path.parent} has no {CONFIG_FILE}: half an adapter; give the whole folder that "
        "save_pretrained() wrote"
    )
    facts = read_json(path, ExportError, missing=missing, remedy="; save the adapter again")
    if not isinstance(facts, dict):
        raise ExportError(
            f"{path} holds {type(facts).__name__}, expected a JSON object; save the adapter again"
        )
    return facts


def _why_not(kind: str) -> str:
    """Why no prefix comes of another kind of adapter, and what to do with it."""
    if kind == "ADAPTION_PROMPT":
        return (
            "whose prompts enter through a gate of their own in each layer; train a prefix with "
            "`edgeprefix train`"
        )
    if kind == "None":
        return (
            f"which is none: its {CONFIG_FILE} names no peft_type; save the adapter again with "
            "save_pretrained()"
        )
    return (
        "which changes the base's own layers and is no prefix; merge it into the base with peft's "
        "merge_and_unload(), save "
        "the result and give that to `edgeprefix export decoder`. Prefixes are made of "
        f"{', '.join(KINDS)}"
    )


def _require_language_model(folder: Path, facts: Mapping[str, Any]) -> None:
    task, modules = facts.get("task_type"), facts.get("num_transformer_submodules")
    if task != "CAUSAL_LM":
        raise ExportError(
            f"{folder} has task_type {task}, expected CAUSAL_LM: only the prompts of decoder-only "
            "language models become "
            "prefixes"
            + (
                " (peft itself runs a model of no task_type without its prompt)"
                if task is None
                else ""
            )
        )
    if modules not in (None, 1):
        raise ExportError(
            f"{folder} has prompts for {modules} transformers, expected 1: it is of an "
            "encoder-decoder"
        )
    if facts.get("modules_to_save"):
        raise ExportError(
            f"{folder} retrained modules of the base as well "
            f"({', '.join(map(str, facts['modules_to_save']))}), which a prefix "
            "cannot carry; train the adapter without modules_to_save"
        )


def _number(folder: Path, facts: Mapping[str, Any], name: str) -> int:
    value = _optional_number(folder, facts, name)
    if value is None:
        raise ExportError(
            f"{folder / CONFIG_FILE} lacks {name}; save the adapter again with save_pretrained()"
        )
    return value


def _optional_number(folder: Path, facts: Mapping[str, Any], name: str) -> int | None:
    value = facts.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ExportError(
            f"{folder / CONFIG_FILE}: {name} is {value!r}, expected a whole number from 1"
        )
    return value
