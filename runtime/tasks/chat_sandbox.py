"""Where chat templates run: Jinja's sandbox, set up as transformers 5 does it (its
utils/chat_template_utils.py), so that a template gives the same text here as there, within the
limits of chat_limits.py.

Jinja is an optional dependency: only those who ask for a chat prompt need it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from edgeprefix.runtime.errors import MissingExtraError, RequestError, TemplateError
from edgeprefix.runtime.tasks.chat_limits import (
    A_CALL,
    BUDGET,
    Budget,
    charge,
    charge_operator,
    counted,
    joined,
    measured,
    noted,
)

Render = Callable[..., str]

# Filters that no template can name
_COUNTED, _JOINED, _MEASURED = "counted items", "joined texts", "measured value"


def render_template(template: str, values: Mapping[str, Any]) -> str:
    """The template's text. Raises RequestError with the template's own words when it refuses the
    values, TemplateError when it is at fault itself, MissingExtraError without Jinja.
    """
    _require_jinja()
    refusal = "the base's chat template cannot take these messages"
    token = BUDGET.set(Budget())
    try:
        return _compiled(template)(**values)
    except _RefusedError as error:
        raise RequestError(f"{refusal}: {error}") from error
    except Exception as error:  # a template can do whatever raises: divide by zero, nest too deep
        reason = str(error) or type(error).__name__
        raise TemplateError(f"{refusal}: {reason} ({type(error).__name__})") from error
    finally:
        BUDGET.reset(token)


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
    from jinja2.runtime import LoopContext
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.visitor import NodeTransformer

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

    class Counting(NodeTransformer):
        """Loops, comparisons and `~`, which no method of an environment sees."""

        def visit_For(self, node: Any) -> Any:  # noqa: N802  (Jinja's name)
            self.generic_visit(node)
            node.iter = nodes.Filter(node.iter, _COUNTED, [], [], None, None)
            return node

        def visit_Compare(self, node: Any) -> Any:  # noqa: N802  (Jinja's name)
            self.generic_visit(node)
            node.expr = nodes.Filter(node.expr, _MEASURED, [], [], None, None)
            return node

        def visit_Concat(self, node: Any) -> Any:  # noqa: N802  (Jinja's name)
            self.generic_visit(node)
            return nodes.Filter(nodes.List(node.nodes), _JOINED, [], [], None, None)

    class Environment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(["*", "**", "+", "%"])
        concat = staticmethod(joined)

        def _parse(self, *source: Any) -> Any:
            return Counting().visit(super()._parse(*source))

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            safe: bool = super().is_safe_attribute(obj, attr, value)
            return safe and attr not in ("translate", "encode")  # whose results nobody counts

        def call(self, context: Any, called: Any, /, *args: Any, **named: Any) -> Any:
            BUDGET.get().step(A_CALL)
            method = getattr(called, "__wrapped__", called)  # the sandbox wraps `format`
            owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
            if isinstance(called, LoopContext) and args:  # a recursive loop
                args = (counted(args[0]), *args[1:])
            elif isinstance(owner, str):
                args = tuple(_held(one) for one in args)
                charge(name, owner, [*args, *named.values()])
            return noted(super().call(context, called, *args, **named))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            charge_operator(operator, left, right)
            return super().call_binop(context, operator, left, right)

    environment = Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=measured,
        extensions=[Generation, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _to_json
    environment.filters = {
        name: _limited(name, call) for name, call in environment.filters.items()
    } | {_COUNTED: counted, _JOINED: joined, _MEASURED: measured}
    del environment.globals["lipsum"]
    environment.globals.update(raise_exception=_refuse, namespace=namespace)
    return environment


def _limited(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """A filter within the limits. Some are given Jinja's context or environment first."""
    place = 1 if hasattr(call, "jinja_pass_arg") else 0

    @functools.wraps(call)
    def limited(*args: Any, **named: Any) -> Any:
        before, [value, *given] = args[:place], args[place:]
        value = _held(value) if name in ("join", "sum") else value
        charge(name, value, [*given, *named.values()])
        return noted(call(*before, value, *given, **named))

    return limited


def _held(value: Any) -> Any:
    """What comes one by one as a list, so that it can be measured."""
    return list(value) if isinstance(value, Iterator) else value
