"""A prefix as a PEFT adapter: a folder of type PREFIX_TUNING that `PeftModel.from_pretrained(model,
folder)` loads.

Keys and values are what such an adapter stores, so nothing is lost on the way. What PEFT has no
place for goes to the folder's README.md, for people: prompt template, labels, stop texts. Letters:
P prefix length, L layers, H heads, D head size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.numpy

from edgeprefix.export.peft.config import CONFIG_FILE, TENSOR_FILE
from edgeprefix.export.peft.kv_layout import pack_layers
from edgeprefix.export.peft.tensors import PROMPT
from edgeprefix.runtime.contracts.files import atomic_folder
from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.errors import ExportError

_CARD_FILE = "README.md"
_MARK = "written by edgeprefix"  # in the card: PEFT's own folders have files of the same names


def write_peft(prefix: Prefix, folder: str | Path, base: str, *, force: bool = False) -> None:
    """Writes a prefix as the folder of a PEFT adapter, whole or not at all, in fp32.

    `base` is what the adapter names as its base: a hub id, or a folder; peft itself loads the
    adapter onto any model that is handed to it. With `force` a folder that this function wrote
    before is replaced; any other stays. Raises ExportError when the prefix has what PEFT
    cannot express, OutputError when the folder cannot be written.
    """
    heads, size = _one_shape(prefix)
    with atomic_folder(folder, ours=adapter_files, force=force) as building:
        config = json.dumps(_config(prefix, base, heads=heads, size=size), indent=2, sort_keys=True)
        (building / CONFIG_FILE).write_text(config + "\n", encoding="utf-8")
        tensors = {PROMPT: pack_layers(prefix.layers)}
        (building / TENSOR_FILE).write_bytes(
            safetensors.numpy.save(tensors, metadata={"format": "pt"})
        )
        (building / _CARD_FILE).write_text(_card(prefix, base), encoding="utf-8")


def adapter_files(folder: Path) -> tuple[str, ...]:
    """The files of an adapter that `write_peft` wrote to `folder`; empty when it wrote none."""
    try:
        card = (folder / _CARD_FILE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ()
    return (CONFIG_FILE, TENSOR_FILE, _CARD_FILE) if _MARK in card else ()


def _one_shape(prefix: Prefix) -> tuple[int, int]:
    """(H, D) of all layers, keys and values. Raises ExportError: PEFT cuts all layers to
    one shape.
    """
    first = prefix.layers[0].key.shape
    for index, layer in enumerate(prefix.layers):
        for kind, array in zip(("keys", "values"), layer, strict=True):
            if array.shape != first:
                raise ExportError(
                    f"prefix {prefix.name!r} cannot be a PEFT adapter: layer {index} has {kind} "
                    f"of {array.shape[0]} heads of "
                    f"{array.shape[2]}, layer 0 has keys of {first[0]} heads of {first[2]}, and "
                    "PEFT knows one size for all; "
                    "keep it as a prefix file"
                )
    return first[0], first[2]


def _config(prefix: Prefix, base: str, *, heads: int, size: int) -> dict[str, Any]:
    """What peft 0.21 writes for prefix tuning, less the fields that leave its defaults."""
    return {
        "base_model_name_or_path": base,
        "encoder_hidden_size": heads * size,
        "inference_mode": True,
        "num_attention_heads": heads,
        "num_layers": len(prefix.layers),
        "num_transformer_submodules": 1,
        "num_virtual_tokens": prefix.length,
        "peft_type": "PREFIX_TUNING",
        "prefix_projection": False,
        "revision": None,
        "task_type": "CAUSAL_LM",
        "token_dim": heads * size,
    }


def _card(prefix: Prefix, base: str) -> str:
    """README.md: the model card that PEFT folders have, with the rest of the task pack."""
    pack = prefix.pack
    facts = [f"Prompt template: `{json.dumps(pack.prompt, ensure_ascii=False)}`"]
    facts += [f"Labels: {', '.join(pack.labels)}"] if pack.labels else []
    facts += [f"Stop texts: {json.dumps(pack.stop, ensure_ascii=False)}"] if pack.stop else []
    facts += [f"Licence: {pack.licence}"] if pack.licence else []
    if pack.continues_text:
        facts.append("Compiled from a text: tokenise prompts with `add_special_tokens=False`")
    lines = "\n".join(f"- {fact}" for fact in facts)
    return (
        f"---\nbase_model: {json.dumps(base)}\nlibrary_name: peft\n---\n\n# {prefix.name}\n\n"
        f"A prefix of {prefix.length} positions for {prefix.base}, {_MARK}.\n\n{lines}\n"
    )
