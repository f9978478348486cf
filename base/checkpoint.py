"""Where a base is: a checkpoint's folder as it stands, a GGUF file, or a hub id of either,
downloaded into the hub's own cache.

`train` and `export` take a base the same way, so that a prefix and a bundle of one hub id carry one
name. What is asked of a base is `Source`; a checkpoint answers with the files of this package, a
GGUF file with those of base/gguf.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from edgeprefix.base.chat_template import read_chat_template
from edgeprefix.base.config import read_config
from edgeprefix.base.gguf.reader import is_gguf
from edgeprefix.base.gguf.source import GgufSource
from edgeprefix.base.hub import download, download_gguf
from edgeprefix.base.identity import checkpoint_identity
from edgeprefix.base.model import load_model
from edgeprefix.base.special_ids import GENERATION_FILE, read_end_ids
from edgeprefix.base.tokenizer import load_tokenizer, optional_json, special_tokens
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.contracts.regular_file import require_regular_files
from edgeprefix.runtime.errors import CheckpointError

_HUB_ID = re.compile(r"\w[\w.-]*(/[\w.-]+)?")
_HUB_FILE = re.compile(r"(\w[\w.-]*/[\w.-]+)/([\w./-]+\.gguf)", re.IGNORECASE)


class Source(Protocol):
    """A base that is on this machine, and what it says of itself; nothing of it is loaded yet.

    Everything raises CheckpointError when a file cannot be read.
    """

    @property
    def folder(self) -> Path:
        """The checkpoint's folder, or the GGUF file."""

    @property
    def name(self) -> str:
        """What people call it: the folder's or file's name, or the hub id."""

    def config(self) -> Any:
        """transformers' configuration. Raises UnsupportedBaseError when it is of a kind that takes
        no prefix or cannot be exported.
        """

    def identity(self) -> BaseIdentity:
        """Who it is, under this name."""

    def tokenizer(self) -> Tokenizer | None:
        """Its tokenizer, None without one."""

    def end_ids(
        self, config: Any, tokenizer: Tokenizer | None, *, vocabulary: int
    ) -> tuple[int, ...]:
        """Ids that end a text; `config` is that of the text model."""

    def special_tokens(self) -> dict[str, str]:
        """Texts of bos_token, eos_token, …"""

    def chat_template(self) -> str | None:
        """The Jinja template of a chat model."""

    def generation_settings(self) -> dict[str, Any]:
        """How the base wants texts to be generated, in the words of a generation_config.json."""

    def load_model(
        self, config: Any, *, hold: str, fast_attention: bool = False
    ) -> tuple[PreTrainedModel, Mapping[str, Tensor] | None]:
        """As base/model.py says it."""


class Checkpoint(NamedTuple):
    """A base's folder, and what people call it: the folder's name, or the hub id."""

    folder: Path
    name: str

    def config(self) -> Any:
        """As Source.config."""
        return read_config(self.folder)

    def identity(self) -> BaseIdentity:
        """As Source.identity."""
        return checkpoint_identity(self.folder, name=self.name)

    def tokenizer(self) -> Tokenizer | None:
        """As Source.tokenizer."""
        return load_tokenizer(self.folder)

    def end_ids(
        self, config: Any, tokenizer: Tokenizer | None, *, vocabulary: int
    ) -> tuple[int, ...]:
        """As Source.end_ids."""
        return read_end_ids(self.folder, config, tokenizer, vocabulary=vocabulary)

    def special_tokens(self) -> dict[str, str]:
        """As Source.special_tokens."""
        return special_tokens(self.folder)

    def chat_template(self) -> str | None:
        """As Source.chat_template."""
        return read_chat_template(self.folder)

    def generation_settings(self) -> dict[str, Any]:
        """As Source.generation_settings."""
        return optional_json(self.folder / GENERATION_FILE)

    def load_model(
        self, config: Any, *, hold: str, fast_attention: bool = False
    ) -> tuple[PreTrainedModel, Mapping[str, Tensor] | None]:
        """As Source.load_model."""
        return load_model(self.folder, config, hold=hold, fast_attention=fast_attention)


def find_checkpoint(base: str | Path, *, revision: str | None = None) -> Source:
    """The source of a base, given as a folder, a GGUF file or a hub id (`org/model`, or
    `org/model/file.gguf`; downloaded, or found in the hub's own cache; what cannot be a base is
    refused before its weights are fetched).

    `revision` is a hub id's branch, tag or commit; its main branch when not given. Raises
    CheckpointError when it is neither on this machine nor a hub id, or a folder that holds what is
    no file, UnsupportedBaseError when it is of a kind that cannot be a base.

    >>> find_checkpoint("checkpoints/base").name  # doctest: +SKIP
    'base'
    """
    folder = Path(base).expanduser()
    if folder.exists() and revision is not None:
        raise CheckpointError(
            f"base {base} is on this machine, and revision {revision} is one of the hub's; leave "
            "the revision out"
        )
    if folder.is_dir():
        _require_regular_files(folder)
        return Checkpoint(folder, folder.resolve().name)
    if is_gguf(folder):
        return GgufSource(folder, folder.name)
    if folder.exists():
        raise CheckpointError(
            f"base {base} is a file; give the checkpoint's folder, a GGUF file, or a hub id such "
            "as org/model"
        )
    if (named := _HUB_FILE.fullmatch(str(base))) and not folder.is_absolute():
        return GgufSource(download_gguf(named[1], named[2], revision), str(base))
    if folder.is_absolute() or not _HUB_ID.fullmatch(str(base)):
        raise CheckpointError(
            f"base {base}: no such folder; give the folder of a checkpoint, a GGUF file, or a hub "
            "id such as org/model"
        )
    return Checkpoint(download(str(base), revision, read_config), str(base))


def _require_regular_files(folder: Path) -> None:
    try:
        require_regular_files(folder)
    except OSError as error:
        raise CheckpointError(
            f"base {folder} cannot be read: {error.strerror or error}; download or copy it again"
        ) from error
