"""A prompt template in the words of the base's own chat template, so that nobody copies control tokens by hand (`--chat`).

The result is an ordinary template with one field, kept in the prefix file; the runtime needs no chat template to use it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from edgeprefix.runtime.errors import CheckpointError
from edgeprefix.train.base import local_folder

_MARK = "edgeprefix-input-mark"


def chat_prompt(base: str | Path, *, system: str | None = None, field: str = "input") -> str:
    """The template for one user message `{field}`, up to where the assistant begins to speak.

    Raises CheckpointError when the base has no chat template, or one that cannot hold a system message that was given.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(local_folder(base))
    if not getattr(tokenizer, "chat_template", None):
        raise CheckpointError(f"base {base} has no chat template; give --prompt instead of --chat")
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": _MARK})
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # templates raise what they like, jinja2.TemplateError for one
        raise CheckpointError(f"the chat template of {base} does not take these messages: {error}") from error
    if text.count(_MARK) != 1 or (system and system.strip() not in text):
        raise CheckpointError(f"the chat template of {base} drops a message; give --prompt instead of --chat")
    return _without_own_start(text, tokenizer).replace("{", "{{").replace("}", "}}").replace(_MARK, f"{{{field}}}")


def _without_own_start(text: str, tokenizer: Any) -> str:
    """A leading BOS is left out where encoding adds one anyway, lest there be two."""
    start = tokenizer.bos_token
    adds = bool(start) and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    return text.removeprefix(start) if adds else text
