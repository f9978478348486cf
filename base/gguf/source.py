"""A GGUF file as a base: the questions of base/checkpoint.py, answered from the one file."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from edgeprefix.base.gguf.config import read_gguf_config
from edgeprefix.base.gguf.identity import identity_parts
from edgeprefix.base.gguf.model import load_gguf_model
from edgeprefix.base.gguf.reader import GgufFile, parts_of
from edgeprefix.base.gguf.tokenizer import build_tokenizer, end_ids, special_tokens
from edgeprefix.base.identity_cache import remembered
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.errors import CheckpointError

_SAMPLING = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}
"""general.sampling.… → its name in a generation_config.json."""


@dataclass(frozen=True)
class GgufSource:
    """A base that is a GGUF file."""

    folder: Path
    """The file itself; of a model in several files, one of them."""
    name: str

    @functools.cached_property
    def file(self) -> GgufFile:
        """The file, opened once. Raises CheckpointError when it cannot be read."""
        return GgufFile.open(self.folder)

    def config(self) -> Any:
        """As Checkpoint.config."""
        return read_gguf_config(self.file)

    def identity(self) -> BaseIdentity:
        """As Checkpoint.identity."""
        parts = remembered(self.folder, parts_of(self.folder), lambda: identity_parts(self.file))
        return BaseIdentity(name=self.name, **parts)

    def tokenizer(self) -> Tokenizer | None:
        """As Checkpoint.tokenizer."""
        return build_tokenizer(self.file)

    def end_ids(
        self, config: Any, tokenizer: Tokenizer | None, *, vocabulary: int
    ) -> tuple[int, ...]:
        """As Checkpoint.end_ids."""
        return end_ids(self.file, vocabulary=vocabulary)

    def special_tokens(self) -> dict[str, str]:
        """As Checkpoint.special_tokens."""
        return special_tokens(self.file)

    def chat_template(self) -> str | None:
        """As Checkpoint.chat_template."""
        template = self.file.facts.get("tokenizer.chat_template")
        if template is not None and not isinstance(template, str):
            raise CheckpointError(f"{self.folder}: tokenizer.chat_template is no text")
        return template

    def generation_settings(self) -> dict[str, Any]:
        """As Checkpoint.generation_settings."""
        stated = {
            name: self.file.facts.get(f"general.sampling.{key}") for key, name in _SAMPLING.items()
        }
        found = {name: value for name, value in stated.items() if value is not None}
        return found | ({"do_sample": True} if found else {})

    def load_model(
        self, config: Any, *, hold: str, fast_attention: bool = False
    ) -> tuple[PreTrainedModel, Mapping[str, Tensor] | None]:
        """As Checkpoint.load_model."""
        return load_gguf_model(self.file, config, hold=hold, fast_attention=fast_attention)
