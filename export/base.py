"""Reading the base: a local checkpoint folder or a hub id becomes a torch model in fp32, a
tokenizer and an identity.

Everything that makes a base unfit for export is refused here, by name and before weights are read
where possible: a folder that is no model, an encoder-decoder, a model that is not a causal language
model, a quantised checkpoint.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from edgeprefix.base.checkpoint import find_checkpoint
from edgeprefix.base.identity import checkpoint_identity
from edgeprefix.export.adapters import ALIBI_POSITIONS, reference_attention
from edgeprefix.export.refusals import refusal
from edgeprefix.export.streaming import fill, hollow_model
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.contracts.tokenizer import end_ids_of
from edgeprefix.runtime.errors import CheckpointError, ExportError

_loader: Any = AutoModelForCausalLM  # transformers has no types for what from_pretrained gives
_transformers_log: Any = logging
_STREAM_ABOVE_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base as the exporter needs it: `model` computes in fp32 and is in evaluation mode,
    `tokenizer` is None without one.
    """

    folder: Path
    identity: BaseIdentity
    model: PreTrainedModel
    tokenizer: Tokenizer | None
    state: Mapping[str, torch.Tensor] | None = None
    """The checkpoint's tensors in their own dtype, when the model runs on them (a big base); else
    None.
    """

    @property
    def config(self) -> Any:
        """The configuration of the text model (of a composite one, its text part)."""
        return self.model.config.get_text_config(decoder=True)

    @property
    def max_positions(self) -> int:
        """Positions that the base can address; models without a limit of their own get that of the
        bias table.
        """
        limits = (
            getattr(self.config, name, None) for name in ("max_position_embeddings", "max_seq_len")
        )
        known = int(next((limit for limit in limits if limit), ALIBI_POSITIONS))
        return min([known, *_other_limits(self.config)])

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Token ids that end a text, the model's own generation settings first."""
        return end_ids_of(_generation_config(self.folder), self.config)

    @property
    def chat_template(self) -> str | None:
        """The Jinja template of a chat model, None when it has none."""
        template = self.folder / "chat_template.jinja"
        if template.exists():
            return template.read_text(encoding="utf-8")
        found = _optional_json(self.folder / "tokenizer_config.json").get("chat_template")
        return found if isinstance(found, str) else None


def _other_limits(config: Any) -> Iterator[int]:
    """Lengths up to which a base computes as the graph does: beyond them Llama 4 cuts its attention
    into chunks and cools it.
    """
    chunk, floor = (getattr(config, name, None) for name in ("attention_chunk_size", "floor_scale"))
    if chunk:
        yield int(chunk)
    if floor and getattr(config, "attn_temperature_tuning", False):
        yield int(floor) - 1


def load_base(base: str | Path, *, stream: bool | None = None) -> Base:
    """Loads a base from a local folder or the hub.

    With `stream` its numbers are held in the checkpoint's own dtype, and turned into fp32 one
    tensor at a time; by default that is done for checkpoints above a gigabyte that are not in fp32.
    Raises CheckpointError when it cannot be read, ExportError when it is of a kind that cannot be
    exported.
    """
    folder, name = find_checkpoint(base)
    config = read_config(folder)
    identity = checkpoint_identity(folder, name=name)
    model, state = _load_model(
        folder, config, stream=_is_big(folder, config) if stream is None else stream
    )
    return Base(
        folder=folder,
        identity=identity,
        model=model,
        tokenizer=_load_tokenizer(folder),
        state=state,
    )


def _is_big(folder: Path, config: Any) -> bool:
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return size > _STREAM_ABOVE_BYTES and config.dtype not in (None, torch.float32)


def read_config(folder: Path) -> Any:
    """The checkpoint's configuration. Raises CheckpointError or ExportError when it is none that
    can be exported.
    """
    facts = _config_facts(folder)
    if facts.get("is_encoder_decoder"):
        raise ExportError(
            f"{folder} is an encoder-decoder ({facts['model_type']}); only decoder-only language "
            "models can be exported"
        )
    if quantisation := facts.get("quantization_config"):
        method = (
            quantisation.get("quant_method", "unknown method")
            if isinstance(quantisation, dict)
            else "unknown method"
        )
        raise ExportError(
            f"{folder} is already quantised ({method}); export the original checkpoint with "
            "--precision int4 or int8"
        )
    if facts["model_type"] not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ExportError(
            f"{folder}: transformers knows no causal language model of type "
            f"{facts['model_type']!r}; "
            "only decoder-only language models of transformers itself can be exported (no remote "
            "code)"
        )
    try:
        config = AutoConfig.from_pretrained(folder)
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        StrictDataclassError,
    ) as error:
        last = str(error).strip().splitlines()[-1].strip()
        raise CheckpointError(
            f"{folder}/config.json is no configuration that transformers takes: {last}"
        ) from error
    if reason := refusal(config):
        raise ExportError(f"{folder}: {facts['model_type']} cannot be exported: {reason}")
    return config


def _config_facts(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no config.json: it is no model; give the folder of a Hugging Face "
            "checkpoint, or a hub id"
        )
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("model_type"), str):
        raise CheckpointError(
            f"{path} names no model_type: it is no configuration of a transformers model"
        )
    return facts


def _load_model(
    folder: Path, config: Any, *, stream: bool
) -> tuple[PreTrainedModel, Mapping[str, torch.Tensor] | None]:
    """The model, computing in fp32; and the checkpoint's tensors when it is streamed."""
    with quiet_transformers():
        try:
            model, loading = _loader.from_pretrained(
                folder, config=config, dtype="auto" if stream else torch.float32,
                attn_implementation=reference_attention(config.model_type),
                local_files_only=True, use_safetensors=True, output_loading_info=True,
            )  # fmt: skip
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise CheckpointError(f"{folder} cannot be loaded: {_first_line(error)}") from error
        missing = sorted(loading["missing_keys"]) + sorted(
            str(key) for key in loading["mismatched_keys"]
        )
        if missing:
            raise CheckpointError(
                f"{folder} lacks {len(missing)} of the model's tensors, such as {missing[0]}; "
                "its config.json and its weights do not belong together"
            )
        state = model.state_dict() if stream else None
        ready: Any = model if state is None else fill(hollow_model(config), state)
    ready.config.use_cache = True
    return ready.eval().requires_grad_(False), state


def _load_tokenizer(folder: Path) -> Tokenizer | None:
    """tokenizer.json as it stands; older vocabulary files are converted by transformers."""
    file = folder / "tokenizer.json"
    if file.is_file():
        try:
            return Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises no other kind
            raise CheckpointError(
                f"{file} cannot be read: {_first_line(error)}; download or save it again"
            ) from error
    if not any(
        (folder / name).is_file() for name in ("tokenizer.model", "vocab.json", "vocab.txt")
    ):
        return None
    with quiet_transformers():
        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
        except (OSError, ValueError, AttributeError, ImportError) as error:
            raise CheckpointError(
                f"{folder}: its tokenizer cannot be converted to tokenizer.json: "
                f"{_first_line(error)}"
            ) from error


def _generation_config(folder: Path) -> GenerationConfig | None:
    if not (folder / "generation_config.json").is_file():
        return None
    return GenerationConfig.from_pretrained(folder)


def _optional_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps transformers' warnings and progress bars off the terminal; both are as before
    afterwards.
    """
    verbosity, bars = _transformers_log.get_verbosity(), _transformers_log.is_progress_bar_enabled()
    _transformers_log.set_verbosity_error()
    _transformers_log.disable_progress_bar()
    try:
        yield
    finally:
        _transformers_log.set_verbosity(verbosity)
        if bars:
            _transformers_log.enable_progress_bar()
