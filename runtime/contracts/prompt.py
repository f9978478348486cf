"""Prompt templates: `{field}` marks in a text, filled from a row.

Only plain names are allowed between the braces (`{{` and `}}` stand for the braces themselves), so
a template that comes with a downloaded prefix file can reach nothing but the row's own fields.
Special tokens that the template writes count, those in the fields do not (template_text.py).
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping

from edgeprefix.runtime.contracts.template_text import Span, TemplateText
from edgeprefix.runtime.errors import TemplateError

_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}


def template_fields(template: str) -> list[str]:
    """The field names of a template in order of first use. Raises TemplateError when it cannot be
    parsed.
    """
    return list(dict.fromkeys(field for _, field in _parse(template) if field is not None))


def render_prompt(template: str, fields: Mapping[str, str]) -> TemplateText:
    """Fills a template. Raises TemplateError naming the missing field and those that there are.

    A field that is a TemplateText itself keeps what it knows.
    """
    pieces: list[str] = []
    own: list[Span] = []
    sources, place, complete = [template], 0, False
    for literal, field in _joined(_parse(template)):
        own.append((place, place + len(literal)))
        pieces.append(literal)
        place += len(literal)
        if field is None:
            continue
        value = _value(fields, field)
        if isinstance(value, TemplateText):
            own += [(place + start, place + end) for start, end in value.own]
            sources.append(value.source)
            complete |= place == 0 and value.complete
        pieces.append(str(value))
        place += len(value)
    return TemplateText("".join(pieces), own, source="\0".join(sources), complete=complete)


def border_problem(text: str, template: str) -> str | None:
    """Why prompts of `template` may not be read behind `text` as in one text with it; None when
    nothing speaks against it.

    Tokens reach across a border within a word, and across a space, which belongs to the word behind
    it.
    """
    first = next(iter(_joined(_parse(template))), ("", None))[0][:1]
    if text[-1:] in (" ", "\t"):
        return (
            "the text ends in a space, and tokens begin with theirs: leave it out, and begin the "
            "prompt with it, or end the text with a line feed"
        )
    if text[-1:].isalnum() and (not first or first.isalnum()):
        return (
            f"the text ends in a word ({text.split()[-1][-20:]!r}), and prompts that begin with "
            "neither a space nor a line feed go on within it: end the text with a line feed"
        )
    return None


def _value(fields: Mapping[str, str], field: str) -> str:
    if field not in fields:
        known = ", ".join(sorted(fields)) or "none"
        raise TemplateError(
            f"the prompt template needs field {{{field}}}, but the row has: {known}"
        )
    value: object = fields[field]
    return value if isinstance(value, str) else str(value)


def _joined(parts: list[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    """Literals that only a doubled brace separates are one."""
    joined: list[tuple[str, str | None]] = []
    for literal, field in parts:
        before = joined.pop()[0] if joined and joined[-1][1] is None else ""
        joined.append((before + literal, field))
    return joined


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
