"""Training rows in the words of the base's own chat template, so that nobody copies control tokens
by hand (`--chat`).

Rows with an `input` become one user message: the result is an ordinary prompt template, kept in the
prefix file, and the runtime needs no chat template to use it. Rows with `messages` are
conversations: the assistant's last message is learnt, everything before it is the prompt, and the
runtime gets the same ids from `Engine.chat_prompt(messages)`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprefix.base import find_checkpoint
from edgeprefix.cli.rows import Row, read_rows
from edgeprefix.runtime.contracts.template_text import TemplateText
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.errors import CheckpointError, DataError, RequestError
from edgeprefix.runtime.tasks.chat import render_chat, today

logger = logging.getLogger(__name__)

MESSAGES = "messages"
CONVERSATION_PROMPT = "{input}"
"""The template of a prefix that was trained on conversations: the whole prompt is rendered
already.
"""
_MARK = "edgeprefix-input-mark"
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
    except RequestError as error:
        raise CheckpointError(f"base {base}: {error}") from error
    if text.count(_MARK) != 1 or (system and system.strip() not in text):
        raise CheckpointError(
            f"the chat template of {base} drops a message; give --prompt instead of --chat"
        )
    if not text.writes(0, len(text)):
        raise CheckpointError(
            f"the system message names a control token of {base}, and as a part of the prompt "
            "template it would count as one; leave it out"
        )
    chat.say_dates()
    literal = chat.without_begin(text).replace("{", "{{").replace("}", "}}")
    return literal.replace(_MARK, f"{{{field}}}")


def holds_conversations(path: Path) -> bool:
    """Whether a JSONL file's first row has `messages`."""
    if path.suffix.lower() not in (".jsonl", ".json") or not path.is_file():
        return False
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        first = next((line for line in file if line.strip()), "")
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
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
    conversations = [_conversation(chat, row, system) for row in rows]
    chat.say_dates()
    return conversations


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
    except RequestError as error:
        raise DataError(f"{row.place}: {error}") from error
    return {"input": text, "target": messages[-1]["content"]}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
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
    tokenizer: TextTokenizer
    dates: list[str] = field(default_factory=list)
    """What the template wrote of today's date."""

    @classmethod
    def of(cls, base: str | Path, revision: str | None) -> _Chat:
        source = find_checkpoint(base, revision=revision)
        template, tokenizer = source.chat_template(), source.tokenizer()
        if template is None or tokenizer is None:
            lacks = "chat template" if template is None else "tokenizer"
            raise CheckpointError(f"base {base} has no {lacks}; give --prompt instead of --chat")
        return cls(template, source.special_tokens(), TextTokenizer(tokenizer, end_ids=()))

    def render(self, messages: Sequence[Mapping[str, str]]) -> TemplateText:
        """The text up to where the assistant begins to speak, as the runtime renders it. Raises
        RequestError with the template's own words.
        """
        return render_chat(
            self.template,
            messages,
            control_tokens=self.tokenizer.control_tokens(self.template),
            special_tokens=self.tokens,
            clock=self._today,
        )

    def without_begin(self, text: str) -> str:
        """A text without the begin token that encoding adds anyway."""
        begin, first = self.tokens.get("bos_token"), self.tokenizer.encode_prompt("a")[0]
        adds = begin is not None and self.tokenizer.token_text(first) == begin
        return str(text).removeprefix(begin or "") if adds else str(text)

    def say_dates(self) -> None:
        """A warning when the template wrote today's date into what is learnt."""
        if self.dates:
            logger.warning(
                "the chat template writes today's date (%s) into the prompts, and the prefix is "
                "trained with it",
                self.dates[0],
            )

    def _today(self, layout: str) -> str:
        self.dates.append(today(layout))
        return self.dates[-1]
