"""Flags of a command made from a table of options (`contracts.option`), so that name, help, range
and default need not be said again.

    @app.command()
    @flags_from(settings=GenerationOptions)
    def run(bundle: Bundle, *, settings: Settings) -> None:
        engine.generate(…, **settings)

Typer reads a command's signature. `flags_from` gives the command one in which the parameter
`settings` is replaced by a flag for each option, and calls it with a dictionary of the options that
were typed: the table's defaults, or a task's own, hold for the rest.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape

from edgeprefix.runtime.contracts.option import Kind, Option, options_of

Command = Callable[..., None]

_TYPES: dict[Kind, Any] = {
    Kind.WHOLE: int | None,
    Kind.NUMBER: float | None,
    Kind.YES_NO: bool | None,
    Kind.TEXT: str | None,
    Kind.TEXTS: list[str] | None,
    Kind.BY_TOKEN: list[str] | None,
}


def flags_from(**tables: type) -> Callable[[Command], Command]:
    """Replaces each parameter named here by the flags of its table; see the top of this file."""

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for name, parameter in signature.parameters.items():
            table = tables.get(name)
            parameters += [parameter] if table is None else map(_parameter, options_of(table))

        @functools.wraps(command)
        def run(**values: Any) -> None:
            for name, table in tables.items():
                typed = [(one, values.pop(one.name)) for one in options_of(table)]
                values[name] = {
                    one.name: _value(one, value) for one, value in typed if value not in (None, [])
                }
            command(**values)

        run.__dict__["__signature__"] = signature.replace(parameters=parameters)
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate


def flag(table: type, name: str, *, default: str) -> Any:
    """The flag of one option, for a command that has only this one: `stop: Annotated[list[str] |
    None, flag(GenerationOptions, "stop", default="none")] = None`.
    """
    return _flag(next(one for one in options_of(table) if one.name == name), default)


def _parameter(one: Option) -> inspect.Parameter:
    return inspect.Parameter(
        one.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[_TYPES[one.kind], _flag(one, _default(one))],
    )


def _flag(one: Option, default: str) -> Any:
    names = f"{one.flag}/--no-{one.flag[2:]}" if one.kind is Kind.YES_NO else one.flag
    metavar = {Kind.BY_TOKEN: "TOKEN:NUMBER"}.get(one.kind)
    if one.facts.choices:
        metavar = "|".join(map(_word, one.facts.choices))
    facts = (
        one.facts.expected or str(one.facts.range),
        "repeatable" if one.kind in (Kind.TEXTS, Kind.BY_TOKEN) else "",
        "" if default == "none" else f"default: {default}",
    )
    more = "; ".join(filter(None, facts))
    about = f"{one.facts.help} ({more})" if more else one.facts.help
    return typer.Option(names, help=escape(about), metavar=metavar)


def _default(one: Option) -> str:
    flag = one.kind is Kind.YES_NO
    return ("no", "yes")[one.default] if flag else one.default_text.lower()


def _word(choice: Any) -> str:
    """A choice as it is typed."""
    return str(choice).lower() if isinstance(choice, bool) else str(choice)


def _value(one: Option, typed: Any) -> Any:
    """What was typed as a value of the table, which says by itself what it does not allow."""
    if one.facts.choices:
        return {_word(choice): choice for choice in one.facts.choices}.get(typed, typed)
    if one.kind is Kind.TEXTS:
        return tuple(typed)
    return _by_token(one, typed) if one.kind is Kind.BY_TOKEN else typed


def _by_token(one: Option, typed: Sequence[str]) -> dict[int, float]:
    """Numbers by token id from texts such as "48:2.5" and "7:-inf"."""
    try:
        pairs = [text.split(":") for text in typed]
        return {int(token): float(number) for token, number in pairs}
    except ValueError as error:
        raise typer.BadParameter(
            f"{' '.join(typed)!r}: expected TOKEN:NUMBER, such as 48:2.5 or 7:-inf",
            param_hint=one.flag,
        ) from error
