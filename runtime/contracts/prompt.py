"""Prompt templates: `{field}` marks in a text, filled from a row.

Only plain names are allowed between the braces (`{{` and `}}` stand for the braces themselves), so
a template that comes with a downloaded prefix file can reach nothing but the row's own fields.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping

from edgeprefix.runtime.errors import TemplateError

_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}


def template_fields(template: str) -> list[str]:
    """The field names of a template in order of first use. Raises TemplateError when it cannot be
    parsed.
    """
    return list(dict.fromkeys(field for _, field in _parse(template) if field is not None))


def render_prompt(template: str, fields: Mapping[str, str]) -> str:
    """Fills a template. Raises TemplateError naming the missing field and those that there are."""
    pieces = []
    for literal, field in _parse(template):
        pieces.append(literal)
        if field is None:
            continue
        if field not in fields:
            known = ", ".join(sorted(fields)) or "none"
            raise TemplateError(
                f"the prompt template needs field {{{field}}}, but the row has: {known}"
            )
        pieces.append(str(fields[field]))
    return "".join(pieces)


def unescaped(typed: str) -> str:
    r"""A template or a stop text as typed in a shell: `\n` stands for a line break, `\t` for a tab,
    `\\` for a backslash; every other backslash for itself.
    """
    return re.sub(r"\\([nt\\])", lambda found: _ESCAPES[found[1]], typed)


def _parse(template: str) -> list[tuple[str, str | None]]:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise TemplateError(
            f"prompt template {template!r} cannot be read: {error}; write {{{{ for a brace"
        ) from error
    parsed = []
    for literal, field, specification, conversion in parts:
        if field is not None and (not field.isidentifier() or specification or conversion):
            raise TemplateError(
                f"prompt template {template!r} has {{{field}}}; only plain names such as "
                f"{{input}} are allowed"
            )
        parsed.append((literal, field))
    return parsed
