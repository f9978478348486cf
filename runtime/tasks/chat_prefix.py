"""The fixed beginning of a conversation as a text to compile, and the prompt template that goes on
from there.

A system prompt, or that and a few example turns, is the same in every call; what the user says next
is the prompt. So a base's chat template is cut in two: what stands before the next user message,
and what stands around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.errors import RequestError
from edgeprefix.runtime.tasks.chat import Message, bundle_chat

# Of the private use area: no template and no conversation has it
_MARK = "\ue000next user message\ue000"


@dataclass(frozen=True, kw_only=True)
class ChatBeginning:
    """`text` is to be compiled; `prompt` is the template of what follows, with `{input}` for the
    user's next message.
    """

    text: str
    prompt: str


def chat_beginning(
    manifest: Manifest, tokenizer: TextTokenizer, messages: Sequence[Message]
) -> ChatBeginning:
    """Cuts the base's chat template behind `messages`; the assistant is to answer the user message
    that follows.

    The cut is made before the user message's own marks where the template allows it, for there
    stands a special token and no token can reach across; templates that put the first user message
    and the system prompt in one are cut at the user's text. Raises RequestError when there are no
    messages, the last one is the user's, or the base's template refuses them.
    """
    if not messages:
        raise RequestError("no messages to compile; give at least a system message")
    if messages[-1].get("role") == "user":
        raise RequestError(
            "the last message is the user's: leave it out, it is the prompt of each call"
        )
    whole = bundle_chat(manifest, tokenizer, [*messages, {"role": "user", "content": _MARK}])
    alone = _alone(manifest, tokenizer, messages)
    before, mark, after = whole.partition(_MARK)
    if not mark or _MARK in after:
        raise RequestError(
            "the base's chat template does not show the user's message once; compile a text instead"
        )
    if alone is not None and before.startswith(alone):
        return ChatBeginning(
            text=alone, prompt=f"{_literal(before[len(alone) :])}{{input}}{_literal(after)}"
        )
    return ChatBeginning(text=before, prompt=f"{{input}}{_literal(after)}")


def _alone(manifest: Manifest, tokenizer: TextTokenizer, messages: Sequence[Message]) -> str | None:
    """The messages by themselves, None when the template wants a user message after them."""
    try:
        return bundle_chat(manifest, tokenizer, messages, add_generation_prompt=False)
    except RequestError:
        return None


def _literal(text: str) -> str:
    """Braces of the template's own text are not fields."""
    return text.replace("{", "{{").replace("}", "}}")
