"""The model of a checkpoint: its weights read, all of them, and none that it has no place for.

Numbers are held in fp32, or in the checkpoint's own dtype (`hold`): a base in bf16 is then never
copied into fp32 as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from edgeprefix.base.attention import reference_attention
from edgeprefix.base.config import text_config
from edgeprefix.base.quiet import first_line, quiet_transformers
from edgeprefix.base.streaming import compute_in_full, fill, hollow_model
from edgeprefix.base.weight_files import stored_dtype, weight_files
from edgeprefix.runtime.errors import CheckpointError

HOLDS = ("auto", "fp32", "stored", "bf16", "streamed")
"""How weights are held. "fp32": as fp32. "stored": in the checkpoint's own dtype; who computes with
them sees to theirs. "bf16": the same, but that a GGUF file's matrices may be rounded to bf16 while
they are read, for who would do that anyway. "streamed": as stored, and each module computes in fp32
while it runs. "auto": streamed for a checkpoint above a gigabyte that is not in fp32, else fp32.
"""

_loader: Any = AutoModelForCausalLM  # transformers has no types for what from_pretrained gives
_STREAM_ABOVE_BYTES = 1 << 30
_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16}
_NAMED = 3  # tensors that a message names


def load_model(
    folder: Path, config: Any, *, hold: str, fast_attention: bool = False
) -> tuple[PreTrainedModel, Mapping[str, Tensor] | None]:
    """The model in evaluation mode, frozen; and the checkpoint's tensors when they are held in
    their own dtype.

    `hold` is one of HOLDS. With `fast_attention` transformers chooses how the model attends, else
    it is the plainest way. Raises CheckpointError when the weights cannot be read, when tensors of
    the model are missing, or when some have no place in it.
    """
    files = weight_files(folder)
    dtype = _DTYPES.get(stored_dtype(files), torch.float32)
    if hold == "auto":
        size = sum(file.stat().st_size for file in files)
        hold = "streamed" if size > _STREAM_ABOVE_BYTES else "fp32"
    if dtype is torch.float32:
        hold = "fp32"
    attention = None if fast_attention else reference_attention(config.model_type)
    model = _read(folder, config, torch.float32 if hold == "fp32" else dtype, attention)
    state: Mapping[str, Tensor] | None = None
    if hold != "fp32":
        state = model.state_dict()
        model = fill(hollow_model(config, fast_attention=fast_attention), state)
        if hold == "streamed":
            compute_in_full(model)
    ready: Any = model
    ready.config.use_cache = True
    return ready.eval().requires_grad_(False), state


def _read(folder: Path, config: Any, dtype: torch.dtype, attention: str | None) -> PreTrainedModel:
    with quiet_transformers():
        try:
            model, loading = _loader.from_pretrained(
                folder, config=config, dtype=dtype, attn_implementation=attention,
                local_files_only=True, use_safetensors=True, trust_remote_code=False,
                output_loading_info=True, ignore_mismatched_sizes=True,
            )  # fmt: skip
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise CheckpointError(f"{folder} cannot be loaded: {first_line(error)}") from error
    _require_whole(folder, config, loading)
    loaded: PreTrainedModel = model
    return loaded


def _require_whole(folder: Path, config: Any, loading: Mapping[str, Any]) -> None:
    """Raises CheckpointError when the checkpoint's tensors are not exactly the model's."""
    belong = "its config.json and its weights do not belong together"
    if missing := sorted(loading["missing_keys"]):
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of the model's tensors, {_named(missing)}; {belong}"
        )
    if mismatched := sorted(str(entry) for entry in loading["mismatched_keys"]):
        raise CheckpointError(
            f"{folder} holds {len(mismatched)} tensors of another shape than the model's, "
            f"{_named(mismatched)}; {belong}"
        )
    if unexpected := sorted(_unexpected(config, loading["unexpected_keys"])):
        raise CheckpointError(
            f"{folder} holds {len(unexpected)} tensors that a {config.model_type} has no place "
            f"for, {_named(unexpected)}; {belong}, or the model has a head that is no language "
            "model's"
        )


def _unexpected(config: Any, names: Iterable[str]) -> list[str]:
    """Tensors without a place; those of a composite model's other parts (its eyes, its ears) are
    none.
    """
    if text_config(config) is config:
        return list(names)
    parts = {name.removesuffix("_config") for name in config.sub_configs} - {"text"}
    others = re.compile("|".join(["projector", *sorted(map(re.escape, parts))]))
    return [name for name in names if not others.search(name)]


def _named(names: list[str]) -> str:
    return ("such as " if len(names) > _NAMED else "") + ", ".join(names[:_NAMED])
