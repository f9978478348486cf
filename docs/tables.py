"""Writes what is derived from the tables of options into the files that show it.

    python docs/tables.py

`GenerationOptions`, `PrefixConfig` and `TrainConfig` say once what an option is. Their tables in
docs/engine.md and docs/training.md, and the names and types that type checkers need for
`engine.generate(…, top_k=5)`, are written here; a test fails when one of them is stale.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgeprefix.runtime.contracts.generation_options import GenerationOptions
from edgeprefix.runtime.contracts.option import Kind, Option, options_of
from edgeprefix.train.config import PrefixConfig, TrainConfig

DOCS = Path(__file__).parent
SETTINGS = DOCS.parent / "runtime/generation/settings.py"

_HEAD = '''"""What callers may pass by name: names and types of GenerationOptions, no more.

Type checkers cannot derive a TypedDict from a dataclass, so `python docs/tables.py` writes it; do
not edit it. Checks, defaults and help stand in contracts/generation_options.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict


class Settings(TypedDict, total=False):
    """The fields of GenerationOptions, each optional."""

'''


def stale() -> dict[Path, str]:
    """The files that are not what they should be, with what they should hold."""
    generation = _table((f"`{one.name}`", one) for one in options_of(GenerationOptions))
    training = [*options_of(PrefixConfig), *options_of(TrainConfig)]
    wanted = {
        SETTINGS: settings(),
        DOCS / "engine.md": _page("engine.md", "generation", generation),
        DOCS / "training.md": _page(
            "training.md", "training", _table((f"`{one.flag}`", one) for one in training)
        ),
    }
    return {
        path: text
        for path, text in wanted.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }


def settings() -> str:
    """The module of `Settings`."""
    return _HEAD + "".join(
        f"    {one.name}: {_caller_type(one)}\n" for one in options_of(GenerationOptions)
    )


def _caller_type(one: Option) -> str:
    """The annotation of a field, several texts in whatever form a caller has them."""
    annotation = GenerationOptions.__annotations__[one.name].replace("'", '"')
    return "str | Sequence[str]" if one.kind is Kind.TEXTS else annotation


def _table(rows: Iterable[tuple[str, Option]]) -> str:
    """Rows (name, option) as Markdown."""
    head = ["| option | default | values | |", "|---|---|---|---|"]
    lines = [
        f"| {shown} | {one.default_text} | {one.expected} | {one.facts.help} |"
        for shown, one in rows
    ]
    return "\n".join([*head, *lines])


def _page(name: str, which: str, table: str) -> str:
    """A page with the table between its two marks replaced."""
    begin, end = f"<!-- options of {which}: written by docs/tables.py -->\n", "\n<!-- end -->"
    before, _, rest = (DOCS / name).read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    if not after:
        raise SystemExit(f"docs/{name} lacks the marks {begin.strip()} and {end.strip()}")
    return before + begin + table + end + after


if __name__ == "__main__":
    for path, text in stale().items():
        path.write_text(text, encoding="utf-8")
