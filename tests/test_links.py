"""What README, CONTRIBUTING, docs and the code cite of the project is there.

`make docs` holds the links within docs/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "demo/base/README.md")
CODE = sorted(
    path.name
    for path in ROOT.iterdir()
    if path.is_dir() and not path.name.startswith((".", "build", "demo-report"))
)


def anchors(page: Path) -> set[str]:
    """The anchors that a forge gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_of_a_page(name: str) -> None:
    page = ROOT / name
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if not link.startswith("http"):
            target, _, anchor = link.partition("#")
            path = page.parent / target
            assert path.exists(), f"{name} links to {link}"
            assert not anchor or anchor in anchors(path), f"{name}: no heading #{anchor}"


def test_pages_that_the_code_cites() -> None:
    cited = dict(citations())
    assert len(cited) > 5
    missing = {page: path for page, path in cited.items() if not (ROOT / page).exists()}
    assert not missing


def test_code_that_the_pages_cite() -> None:
    """`trainer.py`, `train/trainer.py`, `train/trainer.py: train_prefix`."""
    files = [f"/{path.relative_to(ROOT)}" for folder in CODE for path in python(folder)]
    pages = [*map(ROOT.joinpath, PAGES), *(ROOT / "docs").rglob("*.md")]
    cited = {
        name: page.name
        for page in pages
        for name in re.findall(r"`(?:python )?([\w/]+\.py)\b", page.read_text(encoding="utf-8"))
    }
    assert len(cited) > 50
    assert not {
        name: page
        for name, page in cited.items()
        if not any(path.endswith(f"/{name}") for path in files)
    }


def python(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def citations() -> Iterator[tuple[str, Path]]:
    """(page, a file that cites it), for every page of docs/ that a Python file names."""
    for folder in CODE:
        for path in python(folder):
            for page in re.findall(r"\bdocs/[\w/-]+\.md\b", path.read_text(encoding="utf-8")):
                yield page, path
