"""The one loader: a checkpoint's folder, a GGUF file or a hub id becomes a model, a tokenizer and
an identity.

The configuration is read before any weight, and what cannot be a base is refused by name. What a
base says of itself is asked of its source (checkpoint.py), in one place each: of a checkpoint
weights in model.py, tokenizer in tokenizer.py, special ids, chat template, positions and identity
in files of their names; of a GGUF file in base/gguf.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from edgeprefix.base.checkpoint import find_checkpoint
from edgeprefix.base.config import text_config
from edgeprefix.base.max_positions import max_positions
from edgeprefix.base.model import HOLDS
from edgeprefix.base.special_ids import single_id
from edgeprefix.base.tokenizer import fitted
from edgeprefix.runtime.contracts.identity import BaseIdentity


@dataclass(frozen=True, kw_only=True)
class Base:
    """A frozen language model as its checkpoint gives it."""

    folder: Path
    """The checkpoint's folder, or the GGUF file."""
    identity: BaseIdentity
    model: PreTrainedModel
    """In evaluation mode. What it computes in is for `hold` of `load_base` to say."""
    tokenizer: Tokenizer | None
    """None when the checkpoint has none."""
    state: Mapping[str, torch.Tensor] | None = None
    """The checkpoint's tensors in their own dtype, when the model holds them so; else None."""
    end_ids: tuple[int, ...] = ()
    """Ids that end a text; the first closes a training target (special_ids.py)."""
    chat_template: str | None = None
    """The Jinja template of a chat model."""
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    """Texts of bos_token, eos_token, …"""
    generation_settings: Mapping[str, Any] = field(default_factory=dict)
    """How it wants texts to be generated, in the words of a generation_config.json."""

    @property
    def config(self) -> Any:
        """The configuration of the text model (of a composite one, its text part)."""
        return text_config(self.model.config)

    @property
    def max_positions(self) -> int:
        """Positions that the base can address: prefix, text and new tokens together."""
        return max_positions(self.config)

    @property
    def begin_id(self) -> int | None:
        """The id that begins a text, None without one."""
        return single_id(self.config, "bos_token_id", vocabulary=int(self.config.vocab_size))

    @property
    def pad_id(self) -> int | None:
        """The id that fills up a batch, None without one."""
        return single_id(self.config, "pad_token_id", vocabulary=int(self.config.vocab_size))


def load_base(
    base: str | Path,
    *,
    revision: str | None = None,
    hold: str = "auto",
    fast_attention: bool = False,
) -> Base:
    """Loads a base, frozen, from a checkpoint's folder, a GGUF file or the hub (`revision`: branch,
    tag, commit).

    `hold` is one of HOLDS: in which dtype weights are held. With `fast_attention` transformers
    chooses how the model attends, else it is the plainest way, which graphs are compared with.
    Raises CheckpointError when it cannot be read, UnsupportedBaseError when it is of a kind that
    takes no prefix or cannot be exported.

    >>> load_base("checkpoints/base").max_positions  # doctest: +SKIP
    1024
    """
    if hold not in HOLDS:
        raise ValueError(f"hold {hold!r} is unknown; choose one of {', '.join(HOLDS)}")
    source = find_checkpoint(base, revision=revision)
    config = source.config()
    vocabulary = int(text_config(config).vocab_size)
    tokenizer = source.tokenizer()
    end_ids = source.end_ids(text_config(config), tokenizer, vocabulary=vocabulary)
    template, special_tokens = source.chat_template(), source.special_tokens()
    identity = source.identity()
    model, state = source.load_model(config, hold=hold, fast_attention=fast_attention)
    if tokenizer is not None:
        table: Any = model.get_input_embeddings()
        rows = int(table.weight.shape[0])
        tokenizer = fitted(tokenizer, rows, name=identity.name)
    return Base(
        folder=source.folder,
        identity=identity,
        model=model,
        tokenizer=tokenizer,
        state=state,
        end_ids=end_ids,
        chat_template=template,
        special_tokens=special_tokens,
        generation_settings=source.generation_settings(),
    )
