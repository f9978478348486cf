"""The terminal as all commands write to it. What is printed is data (paths, labels, prompts), so
nothing is ever read as markup: `[/INST]` and `:warning:` come out as they are.
"""

from __future__ import annotations

import codecs
import json
import sys
from typing import Any

import typer
from rich.console import Console
from rich.progress import TextColumn
from rich.style import StyleType

_CONTROL = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
}


class _Terminal(Console):
    """Texts are not wrapped here: a terminal does that itself, and a log keeps a path whole."""

    def print(self, *objects: Any, soft_wrap: bool | None = None, **how: Any) -> None:
        if soft_wrap is None:
            soft_wrap = all(isinstance(one, str) for one in objects)
        super().print(*objects, soft_wrap=soft_wrap, **how)


def terminal(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console for a command's messages and tables; styles are given apart from the text."""
    return _Terminal(stderr=stderr, quiet=quiet, markup=False, emoji=False)


def text_column(form: str = "{task.description}", style: StyleType = "none") -> TextColumn:
    """A progress bar's column of text, `form` as for rich's TextColumn but without markup."""
    return TextColumn(form, style=style, markup=False)


def printable(text: str) -> str:
    """Text of a foreign file for the terminal: control characters, which could move the cursor or
    change what was printed before, are shown as `\\x1b`.
    """
    return text.translate(_CONTROL)


def print_json(value: Any, *, indent: int | None = None) -> None:
    """Prints a JSON value. What standard output's encoding may lack is escaped as JSON has it: a
    reader gets the same value.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    whole = codecs.lookup(encoding).name == "utf-8"
    typer.echo(json.dumps(value, ensure_ascii=not whole, indent=indent))
