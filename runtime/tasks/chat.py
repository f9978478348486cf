"""Chat templates: messages into the text that a chat-tuned base was trained on.

The template comes with the base (a Jinja text in the manifest), so it is run in Jinja's sandbox,
which reaches nothing but the messages (chat_sandbox.py). Control tokens in what the messages bring
stay letters, while those that the template writes count. To tell them apart, messages with such are
rendered once more with private characters around them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict, Unpack

from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.template_text import Span, TemplateText
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.errors import RequestError
from edgeprefix.runtime.tasks.chat_sandbox import render_template

Message = Mapping[str, Any]
"""{"role": "system" | "user" | "assistant" | …, "content": text, …}"""


class ChatInputs(TypedDict, total=False):
    """What may be given by name beside the messages; templates that do not know it ignore it."""

    tools: Sequence[Mapping[str, Any]] | None
    """JSON schemas of functions."""
    documents: Sequence[Mapping[str, Any]] | None
    """Each with `title` and `text`."""
    variables: Mapping[str, Any] | None
    """The template's own switches, `enable_thinking` for example."""


Clock = Callable[[str], str]
"""Today's date in a layout of strftime."""

_START, _END = "\U000f0000", "\U000f0001"  # private use; transformers takes the same ones
_ROLE = re.compile(r"[\w.-]+")
_REASONING = ("reasoning_content", "thinking", "reasoning")


def today(layout: str) -> str:
    """What templates call as `strftime_now`."""
    return datetime.now().strftime(layout)


def render_chat(
    template: str | None,
    messages: Sequence[Message],
    *,
    control_tokens: Sequence[str],
    special_tokens: Mapping[str, str] | None = None,
    add_generation_prompt: bool = True,
    clock: Clock = today,
    **inputs: Unpack[ChatInputs],
) -> TemplateText:
    """The text of a conversation, ending where the assistant's next message begins.

    `control_tokens` are those that count only where the template writes them. `special_tokens` are
    what it knows as bos_token, eos_token and so on. Raises RequestError when the base has no
    template, or it refuses the messages; TemplateError when the template itself is at fault;
    MissingExtraError without Jinja.
    """
    if not template:
        raise RequestError("this base has no chat template; give the prompt as text")
    values = {
        **(inputs.get("variables") or {}),
        "messages": [_message(message) for message in _checked(messages)],
        "tools": inputs.get("tools"),
        "documents": inputs.get("documents"),
    }
    fixed = {"add_generation_prompt": add_generation_prompt, "strftime_now": clock}
    given = _plain(values)

    def rendered(brought: Mapping[str, Any]) -> str:
        return render_template(template, {**(special_tokens or {}), **brought, **fixed})

    names = re.compile("|".join(map(re.escape, sorted(control_tokens, key=len)[::-1])) or "(?!)")
    text, marked = rendered(given), _marked(given, names)
    if marked == given:
        return TemplateText(text, source=template, complete=True)
    return _told_apart(text, _unmarked(rendered(marked), names, template), names)


def bundle_chat(
    manifest: Manifest,
    tokenizer: TextTokenizer,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = True,
    clock: Clock = today,
    **inputs: Unpack[ChatInputs],
) -> TemplateText:
    """`render_chat` with a bundle's template and its tokenizer's own special tokens."""
    return render_chat(
        manifest.chat_template,
        messages,
        control_tokens=tokenizer.control_tokens(manifest.chat_template or ""),
        special_tokens=_special_tokens(manifest, tokenizer),
        add_generation_prompt=add_generation_prompt,
        clock=clock,
        **inputs,
    )


def _special_tokens(manifest: Manifest, tokenizer: TextTokenizer) -> Mapping[str, str]:
    """Those of the tokenizer; of bundles that do not say, the texts of the ids that they name."""
    if manifest.special_tokens is not None:
        return manifest.special_tokens
    ids = {
        "bos_token": manifest.begin_id,
        "eos_token": next(iter(manifest.end_ids), None),
        "pad_token": manifest.pad_id,
    }
    return {
        name: ("" if token is None else tokenizer.token_text(token)) or ""
        for name, token in ids.items()
    }


def _checked(messages: Sequence[Message]) -> Sequence[Message]:
    """Raises RequestError for what is no conversation in text."""
    if isinstance(messages, str | Mapping) or not messages:
        raise RequestError('no messages: expected a list such as [{"role": "user", "content": …}]')
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise RequestError(f"message {number} is no object with a role")
        if not _ROLE.fullmatch(message["role"]):  # templates make control tokens of it
            raise RequestError(f"message {number}: the role {message['role']!r} is no plain name")
        content = message.get("content")
        for part in content if isinstance(content, list | tuple) else ():
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind != "text":
                raise RequestError(
                    f"message {number} holds a part of type {kind!r}: only text can be read"
                )
    return messages


def _message(message: Message) -> Message:
    """A message as templates want it: nothing that is None, and thoughts under the names that they
    read.
    """
    given = {key: value for key, value in message.items() if value is not None}
    thought = next((given[name] for name in _REASONING if name in given), None)
    return given if thought is None else {"thinking": thought, **given, _REASONING[0]: thought}


def _plain(value: Any) -> Any:
    """Plain JSON values. Raises RequestError for others: a template comes from somewhere, and must
    meet no object with methods.
    """
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, str):
        return str(value).replace(_START, "").replace(_END, "")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    raise RequestError(
        f"messages, tools and documents are JSON values, not {type(value).__name__}; write it as "
        "text"
    )


def _marked(value: Any, names: re.Pattern[str]) -> Any:
    """The values with control tokens wrapped."""
    if isinstance(value, str):
        return names.sub(f"{_START}\\g<0>{_END}", value)
    if isinstance(value, dict):
        return {key: _marked(item, names) for key, item in value.items()}
    return [_marked(item, names) for item in value] if isinstance(value, list) else value


def _unmarked(text: str, names: re.Pattern[str], template: str) -> TemplateText:
    """The text without the marks; a name between two of them is not the template's.

    A template that splits texts may part a pair. A mark alone goes away as well, and no control
    token reaches across where it was.
    """
    own: list[Span] = []
    place, pieces = 0, re.split(f"{_START}({names.pattern}){_END}|[{_START}{_END}]", text)
    for index, piece in enumerate(pieces):
        end = place + len(piece or "")
        if index % 2 == 0:
            own.append((place, end))
        place = end
    return TemplateText(
        "".join(piece or "" for piece in pieces), own, source=template, complete=True
    )


def _told_apart(text: str, known: TemplateText, names: re.Pattern[str]) -> TemplateText:
    """The text with what is `known` of another rendering of it: which control tokens are the
    template's, in their order.

    Marks change what templates see at the ends of a text, so that spaces may differ. When tokens
    do, the template asked for one at a certain place: then it is to see none.
    """
    found, others = list(names.finditer(text)), list(names.finditer(known))
    if [token[0] for token in found] != [token[0] for token in others]:
        return known
    own, place = [], 0
    for token, other in zip(found, others, strict=True):
        if not known.writes(*other.span()):
            own.append((place, token.start()))
            place = token.end()
    own.append((place, len(text)))
    return TemplateText(text, own, source=known.source, complete=True)
