"""A base's configuration, read before any of its weights: what cannot be a base is refused here.

Nothing of a checkpoint is ever run: a configuration that asks for Python of its own is refused by
name, and no question is put to whoever sits at the terminal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from edgeprefix.base.quiet import quiet_transformers
from edgeprefix.base.refusals import refusal
from edgeprefix.runtime.contracts.files import read_json
from edgeprefix.runtime.errors import CheckpointError, UnsupportedBaseError

CONFIG_FILE = "config.json"
_ADAPTER_FILE = "adapter_config.json"


def read_config(folder: Path) -> Any:
    """The checkpoint's configuration, as transformers has it.

    Raises CheckpointError when it cannot be read, UnsupportedBaseError when it is of a kind that
    takes no prefix or cannot be exported.
    """
    facts = config_facts(folder)
    if reason := _refusal_of_facts(facts):
        raise UnsupportedBaseError(f"{folder}: {reason}")
    if (folder / _ADAPTER_FILE).is_file():
        raise CheckpointError(
            f"{folder} holds an adapter ({_ADAPTER_FILE}) beside the model, and transformers would "
            "load it over another base; give the model's own folder"
        )
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        StrictDataclassError,
    ) as error:
        last = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        raise CheckpointError(
            f"{folder / CONFIG_FILE} is no configuration that transformers takes: {last}"
        ) from error
    if reason := refusal(config):
        raise UnsupportedBaseError(f"{folder}: {facts['model_type']} cannot be exported: {reason}")
    return config


def text_config(config: Any) -> Any:
    """The configuration of the text model (of a composite one, its text part)."""
    return config.get_text_config(decoder=True)


def config_facts(folder: Path) -> dict[str, Any]:
    """The JSON object of config.json as it stands. Raises CheckpointError when it is none of a
    transformers model.
    """
    path = folder / CONFIG_FILE
    missing = f"{folder} has no {CONFIG_FILE}: it is no model; {_remedy(folder)}"
    facts = read_json(path, CheckpointError, missing=missing)
    if not isinstance(facts, dict) or not isinstance(facts.get("model_type"), str):
        raise CheckpointError(
            f"{path} names no model_type: it is no configuration of a transformers model"
        )
    return facts


def _remedy(folder: Path) -> str:
    """What to give instead of a folder without a configuration."""
    if found := sorted(folder.glob("*.gguf")):
        return f"give the file itself, {found[0]}"
    return "give the folder of a Hugging Face checkpoint, a GGUF file, or a hub id"


def _refusal_of_facts(facts: dict[str, Any]) -> str | None:
    """Why a configuration cannot be that of a base, as far as its plain facts tell."""
    kind = facts["model_type"]
    if facts.get("is_encoder_decoder"):
        return (
            f"it is an encoder-decoder ({kind}); only decoder-only language models can be exported"
        )
    if quantisation := facts.get("quantization_config"):
        named = quantisation.get("quant_method") if isinstance(quantisation, dict) else None
        return (
            f"it is already quantised ({named or 'unknown method'}); export the original "
            "checkpoint with --precision int4 or int8"
        )
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        own = ", and Python that comes with a model is never run" if facts.get("auto_map") else ""
        return (
            f"transformers knows no causal language model of type {kind!r}{own}; only decoder-only "
            "language models of transformers itself can be exported"
        )
    return None
