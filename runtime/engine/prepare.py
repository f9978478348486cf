"""What every request needs to become work: its task, its prompt in tokens, and room for both.

All of it happens on the caller's thread, so a bad request costs the engine's thread nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np

from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.prompt import render_prompt
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.engine.calibration import Calibrations
from edgeprefix.runtime.errors import PromptTooLongError, RequestError
from edgeprefix.runtime.tasks.chat import ChatInputs, Message, bundle_chat
from edgeprefix.runtime.tasks.prefix_store import Loaded, PrefixStore
from edgeprefix.runtime.work.slot import Ids

Prompt = str | Sequence[int] | Mapping[str, str]
"""Text, token ids (used as they are), or named fields for the task's prompt template."""

AS_IT_IS = "{input}"


class Preparer:
    """Makes tokens of requests for one bundle, its tasks and its cache."""

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: TextTokenizer,
        store: PrefixStore,
        *,
        capacity: int,
        max_batch: int,
    ) -> None:
        self.manifest, self.tokenizer, self.store = manifest, tokenizer, store
        self.capacity, self.max_batch = capacity, max_batch
        self.calibrations = Calibrations()

    def task(self, name: str | None) -> Loaded | None:
        """The task of that name; None for the bare base. Raises UnknownTaskError."""
        if not isinstance(name, str | None):
            raise RequestError(
                f"task={name!r}: expected the name of a task, or None for the bare base"
            )
        return None if name is None else self.store.use(name)

    def prompt_ids(
        self, prompt: Prompt, task: Loaded | None, *, template: str | None = None
    ) -> Ids:
        """Ids [S] of a prompt. Raises RequestError for an empty one and for ids out of range."""
        if isinstance(prompt, str | Mapping):
            continues = task is not None and task.pack.continues_text
            encode = self.tokenizer.encode_behind if continues else self.tokenizer.encode_prompt
            ids = encode(checked_text("the prompt", _rendered(prompt, task, template)))
        else:
            ids = _token_ids(prompt, self.manifest.vocabulary)
        if not ids:
            raise RequestError("the prompt is empty; give at least one token of text")
        return np.asarray(ids, np.int64)

    def chat_ids(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        **inputs: Unpack[ChatInputs],
    ) -> list[int]:
        """Ids of a conversation; its template writes the special tokens itself."""
        text = bundle_chat(
            self.manifest,
            self.tokenizer,
            messages,
            add_generation_prompt=add_generation_prompt,
            **inputs,
        )
        return self.tokenizer.encode_prompt(checked_text("a message", text))

    def require_room(self, task: Loaded | None, tokens: int, what: str = "the prompt") -> None:
        """Raises PromptTooLongError with the numbers unless prefix and `tokens` fit the cache."""
        if self.prefix_length(task) + tokens > self.capacity:
            raise PromptTooLongError(self.too_long(task, tokens, 0, what))

    @staticmethod
    def prefix_length(task: Loaded | None) -> int:
        """P of a task, 0 for the bare base."""
        return 0 if task is None else task.prefix.length

    def too_long(self, task: Loaded | None, tokens: int, new: int, what: str) -> str:
        """What to say when `tokens` and `new` ones do not fit behind the task's prefix."""
        before = self.prefix_length(task)
        room = max(0, self.capacity - before - new)
        numbers = f"prefix {before} + prompt {tokens}" + (f" + new {new}" if new else "")
        less = ", lower max_new_tokens" if new > 1 else ""
        return (
            f"{what} has {tokens} tokens, room is for {room}: {numbers} = {before + tokens + new} "
            f"of {self.capacity} positions; "
            f"shorten it{less} or load the engine with a larger max_length"
        )


def checked_text(what: str, text: str) -> str:
    """The text. Raises RequestError for what no tokenizer takes: half a surrogate pair, say."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"{what} has no valid character at place {error.start}: {error.reason}"
        ) from error
    return text


def _rendered(prompt: str | Mapping[str, str], task: Loaded | None, template: str | None) -> str:
    if not isinstance(template, str | None):
        raise RequestError(f"template={template!r}: expected a text with marks such as {{input}}")
    chosen = (
        template if template is not None else task.pack.prompt if task is not None else AS_IT_IS
    )
    return render_prompt(chosen, {"input": prompt} if isinstance(prompt, str) else prompt)


def _token_ids(prompt: Sequence[Any], vocabulary: int) -> list[int]:
    kind = f"a prompt is text, token ids or named fields, not {type(prompt).__name__}"
    if isinstance(prompt, bytes | bytearray):  # whose items are numbers, but no token ids
        raise RequestError(f"{kind}; decode it first")
    try:
        ids = [operator.index(token) for token in prompt]
    except TypeError as error:
        raise RequestError(kind) from error
    for place, token in enumerate(ids):
        if not 0 <= token < vocabulary:
            raise RequestError(
                f"token id {token} at place {place} is out of range, the vocabulary has 0 … "
                f"{vocabulary - 1}"
            )
    return ids
