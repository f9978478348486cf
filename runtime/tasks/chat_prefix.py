"""The fixed beginning of a conversation as a text to compile, and the prompt template that goes on
from there.

A system prompt, or that and a few example turns, is the same in every call; what the user says next
is the prompt. So a base's chat template is cut in two: what stands before the next user message,
and what stands around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.template_text import TemplateText
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.errors import RequestError
from edgeprefix.runtime.tasks.chat import Message, bundle_chat, today

# Of the private use area: no template and no conversation has it
_MARK = "\ue000next user message\ue000"
_THOUGHTS_END = "</think>"  # templates leave out what stands before it in earlier turns


@dataclass(frozen=True, kw_only=True)
class ChatBeginning:
    """`text` is to be compiled; `prompt` is the template of what follows, with `{input}` for the
    user's next message. `date` is what the template wrote of today's date, which a prefix keeps.
    """

    text: TemplateText
    prompt: str
    date: str | None = None


def chat_beginning(
    manifest: Manifest, tokenizer: TextTokenizer, messages: Sequence[Message]
) -> ChatBeginning:
    """Cuts the base's chat template behind `messages`; the assistant is to answer the user message
    that follows.

    The cut is made before the user message's own marks where the template allows it, for there
    stands a special token and no token can reach across; templates that put the first user message
    and the system prompt in one are cut at the user's text. Raises RequestError when there are no
    messages, the last one is the user's, or the base's template refuses them or leaves one out.
    """
    if not messages:
        raise RequestError("no messages to compile; give at least a system message")
    if messages[-1].get("role") == "user":
        raise RequestError(
            "the last message is the user's: leave it out, it is the prompt of each call"
        )
    dates: list[str] = []

    def clock(layout: str) -> str:
        dates.append(today(layout))
        return dates[-1]

    asked = [*messages, {"role": "user", "content": _MARK}]
    whole = bundle_chat(manifest, tokenizer, asked, clock=clock)
    if whole.count(_MARK) != 1:
        raise RequestError(
            "the base's chat template does not show the user's message once; compile a text instead"
        )
    _require_all(messages, whole)
    place = whole.index(_MARK)
    alone = _alone(manifest, tokenizer, messages)
    if alone and whole[:place].startswith(alone) and not any(_missing(messages, alone)):
        place = len(alone)
    rest = whole.cut(place)
    if not rest.writes(0, len(rest)):
        raise RequestError(
            "a control token in the messages would stand behind the user's text, in the prompt "
            "template, and count there; leave it out"
        )
    return ChatBeginning(
        text=whole.cut(0, place),
        prompt="{input}".join(map(_literal, rest.split(_MARK))),
        date=dates[-1] if dates else None,
    )


def _alone(manifest: Manifest, tokenizer: TextTokenizer, messages: Sequence[Message]) -> str | None:
    """The messages by themselves, None when the template wants a user message after them."""
    try:
        return bundle_chat(manifest, tokenizer, messages, add_generation_prompt=False)
    except RequestError:
        return None


def _require_all(messages: Sequence[Message], text: str) -> None:
    for missing in _missing(messages, text):
        raise RequestError(
            f"the base's chat template leaves out a message ({missing[:60]!r}); leave it out "
            "yourself, or compile a text instead"
        )


def _missing(messages: Sequence[Message], text: str) -> Iterator[str]:
    """What the messages say and the text does not."""
    for message in messages:
        content = message.get("content")
        parts = [content] if isinstance(content, str) else content or ()
        for part in parts:
            said = str(part.get("text", "")) if isinstance(part, dict) else str(part)
            if message.get("role") == "assistant":
                said = said.rpartition(_THOUGHTS_END)[2]
            if said.strip() not in text:
                yield said.strip()


def _literal(text: str) -> str:
    """Braces of the template's own text are not fields."""
    return text.replace("{", "{{").replace("}", "}}")
