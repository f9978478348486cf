"""Where chat templates run: Jinja's sandbox, set up as transformers 5 does it (its
utils/chat_template_utils.py), so that a template gives the same text here as there.

Jinja is an optional dependency: only those who ask for a chat prompt need it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from edgeprefix.runtime.errors import MissingExtraError, RequestError, TemplateError

Render = Callable[..., str]


def render_template(template: str, values: Mapping[str, Any]) -> str:
    """The template's text. Raises RequestError with the template's own words when it refuses the
    values, TemplateError when it is at fault itself, MissingExtraError without Jinja.
    """
    _require_jinja()
    refusal = "the base's chat template cannot take these messages"
    try:
        return _compiled(template)(**values)
    except _RefusedError as error:
        raise RequestError(f"{refusal}: {error}") from error
    except Exception as error:  # a template can do whatever raises: divide by zero, nest too deep
        reason = str(error) or type(error).__name__
        raise TemplateError(f"{refusal}: {reason} ({type(error).__name__})") from error


class _RefusedError(Exception):
    """The template called raise_exception."""


def _refuse(message: object) -> NoReturn:
    raise _RefusedError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML and sorts the keys; bases were trained on neither."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _require_jinja() -> None:
    try:
        import jinja2
        import jinja2.sandbox  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "chat templates need Jinja; type: pip install 'edgeprefix[chat]'"
        ) from error


@functools.lru_cache(maxsize=8)
def _compiled(template: str) -> Render:
    return _environment().from_string(template).render  # type: ignore[no-any-return]


@functools.cache
def _environment() -> Any:
    from jinja2 import nodes, utils
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what the assistant says, for the masks of training."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

        def _said(self, caller: Callable[[], str]) -> str:
            return caller()

    class Namespace(utils.Namespace):
        """Jinja's, without the names that lead into Python's own objects."""

        def __setitem__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                raise SecurityError(f"a namespace has no attribute {name!r}")
            super().__setitem__(name, value)

    def namespace(*values: Any, **named: Any) -> Any:
        made = Namespace()
        for name, value in dict(*values, **named).items():
            made[name] = value
        return made

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=_refuse, namespace=namespace)
    return environment
