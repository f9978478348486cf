"""A base's chat template, wherever and in whatever form its checkpoint keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeprefix.base.tokenizer import encodable, optional_json
from edgeprefix.runtime.errors import CheckpointError

_DEFAULT = "default"


def read_chat_template(folder: Path) -> str | None:
    """The Jinja template of a chat model, None when it has none.

    Asked in this order, the first that has one decides: chat_template.jinja, the file `default` of
    additional_chat_templates/, tokenizer_config.json (a text, or a list of named ones),
    chat_template.json (of processors), and, as all that is left, a single template of another name.
    Raises CheckpointError when one cannot be read, or when there are several and none is the
    default.
    """
    named: dict[str, str] = {}
    for name, template in _templates(folder):
        named.setdefault(name, template)
    if not named or _DEFAULT in named:
        return named.get(_DEFAULT)
    if len(named) == 1:
        return next(iter(named.values()))
    raise CheckpointError(
        f"{folder} has the chat templates {', '.join(sorted(named))} and none of the name "
        f"{_DEFAULT}; save the one that is wanted as chat_template.jinja"
    )


def _templates(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, template) of every place, in their order."""
    if (folder / "chat_template.jinja").is_file():
        yield _DEFAULT, _text(folder / "chat_template.jinja")
    for file in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        if not file.name.startswith("."):
            yield file.stem, _text(file)
    for file in (folder / "tokenizer_config.json", folder / "chat_template.json"):
        yield from _named(optional_json(file).get("chat_template"), file)


def _named(value: Any, file: Path) -> Iterator[tuple[str, str]]:
    """The templates of a field: one text, {name: text}, or [{"name": …, "template": …}]."""
    if value is None:
        return
    if isinstance(value, str):
        yield _DEFAULT, encodable(value, f"{file}: chat_template")
        return
    pairs = list(value.items()) if isinstance(value, dict) else value
    for entry in pairs if isinstance(pairs, list) else [None]:
        if isinstance(entry, dict):
            entry = (entry.get("name"), entry.get("template"))
        if not (isinstance(entry, tuple) and all(isinstance(part, str) for part in entry)):
            raise CheckpointError(
                f"{file}: chat_template is neither a text nor a list of "
                '{"name": …, "template": …}; correct the file'
            )
        yield entry[0], encodable(entry[1], f"{file}: chat_template")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
