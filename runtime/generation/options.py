"""What a caller asks for and what the task asks for, made into one set of options."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from edgeprefix.runtime.contracts.generation_options import GenerationOptions, sampling_options
from edgeprefix.runtime.contracts.option import Kind, options_of
from edgeprefix.runtime.contracts.task_pack import TaskPack
from edgeprefix.runtime.errors import RequestError
from edgeprefix.runtime.generation.settings import Settings

__all__ = ["GenerationOptions", "Settings", "resolve_options", "token_limit"]

DEFAULT_MAX_NEW_TOKENS = 128


def resolve_options(pack: TaskPack | None, settings: Mapping[str, Any]) -> GenerationOptions:
    """The task's own stop texts and defaults, overridden by what the caller gave. Raises
    RequestError for unknown names.
    """
    kinds = {one.name: one.kind for one in options_of(GenerationOptions)}
    for name in settings:
        if name not in kinds:
            near = difflib.get_close_matches(name, kinds, n=3) or kinds
            raise RequestError(f"option {name!r} is unknown; did you mean {', '.join(near)}?")
    given = {
        name: _several(name, value) if kinds[name] is Kind.TEXTS else value
        for name, value in settings.items()
    }
    wishes = _defaults(pack)
    # The caller's beams are not sampled, whatever the task would like
    if given.get("beams", 1) != 1:
        for one in sampling_options():
            wishes.pop(one.name, None)
    return GenerationOptions(**(wishes | given))


def _defaults(pack: TaskPack | None) -> dict[str, Any]:
    """What the pack asks for, but for the length, which is only a wish (see `token_limit`)."""
    if pack is None:
        return {}
    wishes = {
        name: value
        for name, value in dataclasses.asdict(pack.generation).items()
        if value is not None
    }
    wishes.pop("max_new_tokens", None)
    return {**wishes, "stop": pack.stop}


def token_limit(options: GenerationOptions, pack: TaskPack | None, room: int) -> int | None:
    """Tokens that may be generated into `room` free positions; None when an explicit wish does not
    fit.
    """
    if options.max_new_tokens is not None:
        return options.max_new_tokens if options.max_new_tokens <= room else None
    wish = pack.generation.max_new_tokens if pack is not None else None
    return min(wish or DEFAULT_MAX_NEW_TOKENS, room) if room > 0 else None


def _several(name: str, value: Any) -> tuple[Any, ...]:
    """Lists of texts become tuples; one text where several may stand is one."""
    if not isinstance(value, str | Iterable | None):
        raise RequestError(f"{name}={value!r}: expected a text or several")
    return (value,) if isinstance(value, str) else tuple(value or ())
