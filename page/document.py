"""The parts that every page is made of: the frame around it, tiles, two columns, a list of
facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from edgeprefix.page.style import CSS


def document(title: str, body: str, *, footer: str) -> str:
    """A whole page around `body`, which is HTML; `title` and `footer` are text."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n"
        f"<body><main>{body}<footer>{escape(footer)}</footer></main></body></html>\n"
    )


def tile(number: str, unit: str, caption: str, style: str = "") -> str:
    """A large number over what it is."""
    shown = f"{escape(number)} <i class='unit'>{escape(unit)}</i>" if unit else escape(number)
    return f"<div class='tile {style}'><b>{shown}</b><span>{escape(caption)}</span></div>"


def side_by_side(left: str, right: str) -> str:
    """Two sections in a row, one above the other on a small screen."""
    return f"<div class='grid pair'><section>{left}</section><section>{right}</section></div>"


def facts(rows: Mapping[str, str]) -> str:
    """A card of names and values."""
    shown = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows.items()
    )
    return f"<div class='card'><dl>{shown}</dl></div>"
