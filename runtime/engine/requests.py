"""What a caller asks of the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from edgeprefix.runtime.generation.options import Settings

Prompt = str | Sequence[int] | Mapping[str, str]
"""Text, token ids (used as they are), or named fields for the task's prompt template."""


class Request:
    """One generation for `generate_many` or `submit`.

    Text is put into the task's prompt template as {input}; without a prefix it is used as it is.
    `template` overrides the task's own, settings override its defaults. `timeout_s` counts from
    submission.

    >>> Request("name: Aromi", prefix="e2e", max_new_tokens=40).prefix
    'e2e'
    """

    __slots__ = ("prefix", "prompt", "settings", "template", "timeout_s")

    def __init__(
        self,
        prompt: Prompt,
        *,
        prefix: str | None = None,
        template: str | None = None,
        timeout_s: float | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        self.prompt = prompt
        self.prefix = prefix
        self.template = template
        self.timeout_s = timeout_s
        self.settings: Mapping[str, Any] = settings

    def __repr__(self) -> str:
        settings = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        return f"Request({self.prompt!r}, prefix={self.prefix!r}{settings})"
