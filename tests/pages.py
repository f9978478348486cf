"""What every page that we write must be: well-formed, and sufficient unto itself."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_VOID = {"meta", "br", "img", "link", "hr", "input"}


class _Balance(HTMLParser):
    """Keeps the open elements; a closing tag must close the innermost."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def assert_stands_alone(page: str) -> None:
    """No script, and nothing that a browser would fetch."""
    balance = _Balance()
    balance.feed(page)
    assert balance.open == []
    assert not balance.tags & {"script", "link", "img", "iframe", "object", "embed", "image", "use"}
    assert not balance.attributes & {
        "src",
        "href",
        "srcset",
        "data",
        "xlink:href",
        "onclick",
        "onload",
    }
    assert not re.search(r"url\(|@import|@font-face|https?:", page)
