"""Training rows in the words of the base's own chat template, so that nobody copies control tokens
by hand (`--chat`).

Rows with an `input` become one user message: the result is an ordinary prompt template, kept in the
prefix file, and the runtime needs no chat template to use it. Rows with `messages` are
conversations: the assistant's last message is learnt, everything before it is the prompt, and the
runtime gets the same ids from `Engine.chat_prompt(messages)`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers.utils import chat_template_utils

from edgeprefix.base import find_checkpoint
from edgeprefix.base.chat_template import read_chat_template
from edgeprefix.base.tokenizer import load_tokenizer, special_tokens
from edgeprefix.runtime.contracts.rows import Row, read_rows
from edgeprefix.runtime.errors import CheckpointError, DataError

MESSAGES = "messages"
CONVERSATION_PROMPT = "{input}"
"""The template of a prefix that was trained on conversations: the whole prompt is rendered
already.
"""
_MARK = "edgeprefix-input-mark"
_templates: Any = chat_template_utils  # whose types say that a rendering is a text
_ROLES = ("system", "user", "assistant", "tool")


def chat_prompt(
    base: str | Path,
    *,
    revision: str | None = None,
    system: str | None = None,
    field: str = "input",
) -> str:
    """The template for one user message `{field}`, up to where the assistant begins to speak.

    Raises CheckpointError when the base has no chat template, or one that cannot hold a system
    message that was given.
    """
    chat = _Chat.of(base, revision)
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": _MARK})
    try:
        text = chat.render(messages)
    except ValueError as error:
        raise CheckpointError(
            f"the chat template of {base} does not take these messages: {error}"
        ) from error
    if text.count(_MARK) != 1 or (system and system.strip() not in text):
        raise CheckpointError(
            f"the chat template of {base} drops a message; give --prompt instead of --chat"
        )
    return text.replace("{", "{{").replace("}", "}}").replace(_MARK, f"{{{field}}}")


def holds_conversations(path: Path) -> bool:
    """Whether a JSONL file's first row has `messages`."""
    if path.suffix.lower() not in (".jsonl", ".json") or not path.is_file():
        return False
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        first = next((line for line in file if line.strip()), "")
    try:
        row = json.loads(first)
    except ValueError:
        return False
    return isinstance(row, dict) and MESSAGES in row


def conversation_rows(
    base: str | Path, path: Path, *, revision: str | None = None, system: str | None = None
) -> list[dict[str, str]]:
    """Rows for `train_prefix` with CONVERSATION_PROMPT: "input" is all up to the assistant's last
    turn, "target" that turn.

    `system` is put before conversations that have no system message. Raises DataError naming file
    and line of what is no conversation that ends with the assistant, CheckpointError when the base
    has no chat template.
    """
    chat = _Chat.of(base, revision)
    rows = read_rows(path, required=[MESSAGES], structured=[MESSAGES])
    return [_conversation(chat, row, system) for row in rows]


def _conversation(chat: _Chat, row: Row, system: str | None) -> dict[str, str]:
    messages = _parsed(row[MESSAGES])
    problem = _problem(messages)
    if problem is not None:
        raise DataError(
            f'{row.place}: {problem}; expected [{{"role": "user", "content": …}}, …, '
            f'{{"role": "assistant", …}}]'
        )
    if system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
    try:
        text = chat.render(messages[:-1])
    except ValueError as error:
        raise DataError(
            f"{row.place}: the base's chat template does not take this conversation: {error}"
        ) from error
    return {"input": text, "target": messages[-1]["content"]}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # a plain text in the field: _problem says what it should have been


def _problem(messages: Any) -> str | None:
    """What keeps this from being a conversation to learn from; None when nothing does."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return f"{MESSAGES} is no list of messages"
    for number, message in enumerate(messages, start=1):
        if message.get("role") not in _ROLES or not isinstance(message.get("content"), str):
            return f"message {number} has no role of {', '.join(_ROLES)} or no text as content"
    if (
        len(messages) < 2
        or messages[-1]["role"] != "assistant"
        or not messages[-1]["content"].strip()
    ):
        return f"the {len(messages)} messages do not end with the assistant's answer to something"
    return None


@dataclass(frozen=True)
class _Chat:
    """What a base says of conversations: its template, and the tokens that this may name."""

    template: str
    tokens: Mapping[str, str]
    tokenizer: Tokenizer

    @classmethod
    def of(cls, base: str | Path, revision: str | None) -> _Chat:
        folder = find_checkpoint(base, revision=revision).folder
        template, tokenizer = read_chat_template(folder), load_tokenizer(folder)
        if template is None or tokenizer is None:
            lacks = "chat template" if template is None else "tokenizer"
            raise CheckpointError(f"base {base} has no {lacks}; give --prompt instead of --chat")
        return cls(template, special_tokens(folder), tokenizer)

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text up to where the assistant begins to speak, without a begin token that encoding
        adds anyway. Raises ValueError with the template's own words.
        """
        try:
            texts, _ = _templates.render_jinja_template(
                [list(messages)],
                chat_template=self.template,
                add_generation_prompt=True,
                **self.tokens,
            )
        except Exception as error:  # templates raise what they like, jinja2.TemplateError for one
            raise ValueError(str(error)) from error
        begin = self.tokens.get("bos_token")
        adds = begin is not None and self.tokenizer.encode("a").tokens[:1] == [begin]
        return str(texts[0]).removeprefix(begin or "") if adds else str(texts[0])
