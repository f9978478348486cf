"""Chat templates: messages into the text that a chat-tuned base was trained on.

The template comes with the base (a Jinja text in the manifest), so it is run in Jinja's sandbox,
which reaches nothing but the messages. Jinja is an optional dependency: only those who ask for a
chat prompt need it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.errors import MissingExtraError, RequestError

Message = Mapping[str, str]
"""{"role": "system" | "user" | "assistant", "content": text}"""


def render_chat(
    template: str | None,
    messages: Sequence[Message],
    *,
    begin_token: str = "",
    end_token: str = "",
    add_generation_prompt: bool = True,
) -> str:
    """The text of a conversation, ending where the assistant's next message begins.

    Raises RequestError when the base has no template, or when it refuses the messages;
    MissingExtraError without Jinja.
    """
    if not template:
        raise RequestError("this base has no chat template; give the prompt as text")
    jinja2, sandbox = _jinja()
    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals.update(
        raise_exception=_refuse, strftime_now=lambda layout: datetime.now().strftime(layout)
    )
    try:
        text = environment.from_string(template).render(
            messages=[dict(message) for message in messages],
            bos_token=begin_token,
            eos_token=end_token,
            add_generation_prompt=add_generation_prompt,
        )
    except (jinja2.TemplateError, TypeError, KeyError) as error:
        raise RequestError(
            f"the base's chat template cannot take these messages: {error}"
        ) from error
    return str(text)


def bundle_chat(
    manifest: Manifest,
    tokenizer: TextTokenizer,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = True,
) -> str:
    """`render_chat` with a bundle's template and its own begin and end tokens."""
    begin, end = manifest.begin_id, next(iter(manifest.end_ids), None)
    return render_chat(
        manifest.chat_template,
        messages,
        begin_token=(None if begin is None else tokenizer.token_text(begin)) or "",
        end_token=(None if end is None else tokenizer.token_text(end)) or "",
        add_generation_prompt=add_generation_prompt,
    )


def _jinja() -> tuple[Any, Any]:
    try:
        import jinja2
        import jinja2.sandbox
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "chat templates need Jinja; type: pip install 'edgeprefix[chat]'"
        ) from error
    return jinja2, jinja2.sandbox


def _refuse(message: str) -> NoReturn:
    """What templates call to say that a conversation is not valid."""
    raise TypeError(message)
