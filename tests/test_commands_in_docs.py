"""What README and docs tell to type exists: commands, their options, what they require."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    if "_build" not in path.parts
)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
FOREIGN = {"--group-size", "--strict", "--help"}
"""Options of other programs that the pages speak of, and the one that all commands have."""


NOT_COMMANDS = {"prefix file signature v1"}
"""What follows the word `edgeprefix` elsewhere: the text that a signature begins with."""


class Line(NamedTuple):
    """A command as a page shows it, without the word `edgeprefix`."""

    page: str
    text: str

    @property
    def whole(self) -> bool:
        """Whether it can be typed as it stands: no synopsis, nothing left out."""
        return not re.search(r"[\[\]()…|]", re.sub(r"\"[^\"]*\"", "", self.text))


def blocks(text: str) -> Iterator[str]:
    """Commands in fenced and indented blocks, a synopsis of several lines as one."""
    fenced = re.split(r"^```.*\n", text, flags=re.MULTILINE)[1::2]
    indented = re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE)
    for block in [*fenced, *indented]:
        lines = re.sub(r"\n[ \t]{8,}", " ", block)
        yield from re.findall(
            r"^\s*(?:\$ )?edgeprefix ((?:[^\"'\n]|\"[^\"]*\"|'[^']*')+)", lines, re.MULTILINE
        )


def lines_of(page: Path) -> Iterator[Line]:
    text = page.read_text(encoding="utf-8")
    prose = "".join(re.split(r"^```.*\n", text, flags=re.MULTILINE)[::2])
    inline = re.findall(r"`edgeprefix ([^`]+)`", prose)
    for command in [*blocks(text), *inline]:
        without_comment = re.split(r"\s#\s|\s\|\s(?=[a-z]+ [a-z])", command)[0]
        if re.match(r"[a-z]", without_comment) and without_comment not in NOT_COMMANDS:
            yield Line(str(page.relative_to(ROOT)), " ".join(without_comment.split()))


LINES = sorted({line for page in PAGES for line in lines_of(page)})


@cache
def commands() -> dict[str, Any]:
    entries = entry_points(group="edgeprefix.commands")
    return {entry.name: typer.main.get_command(entry.load()) for entry in entries}


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The click command that takes `words`, and the words left for it."""
    command, rest = commands()[words[0]], words[1:]
    while hasattr(command, "commands"):
        if rest and rest[0] in command.commands:
            command, rest = command.commands[rest[0]], rest[1:]
        elif "measure" in command.commands:  # `bench BUNDLE` is `bench measure BUNDLE`
            command = command.commands["measure"]
        else:
            assert not rest, f"{words[0]} has no command {rest[0]}"
            break
    return command, rest


def options_of(command: Any) -> set[str]:
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


@cache
def all_options() -> set[str]:
    found: set[str] = set()
    waiting = list(commands().values())
    while waiting:
        command: Any = waiting.pop()
        found |= options_of(command)
        waiting += getattr(command, "commands", {}).values()
    return found


@cache
def options_of_scripts() -> set[str]:
    scripts = "".join(path.read_text() for path in (ROOT / "benchmarks").rglob("*.py"))
    return set(re.findall(r"\"(--[a-z][a-z0-9-]*)\"", scripts))


def test_lines_are_found() -> None:
    assert {line.text.split()[0] for line in LINES} == set(commands())
    assert len(LINES) > 50
    assert sum(line.whole for line in LINES) > 25


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.page}: {line.text[:50]}")
def test_a_command_line_has_only_options_that_exist(line: Line) -> None:
    command, _ = command_of(re.findall(r"[\w./-]+", line.text))
    unknown = set(OPTION.findall(line.text)) - options_of(command) - {"--help"}
    assert not unknown, f"{line.page}: edgeprefix {line.text}"


@pytest.mark.parametrize(
    "line",
    [line for line in LINES if line.whole and " -" in line.text],
    ids=lambda line: f"{line.page}: {line.text[:50]}",
)
def test_a_whole_command_line_is_parsed_and_lacks_nothing(line: Line) -> None:
    command, words = command_of(shlex.split(line.text))
    if "--help" in words:
        return
    context = command.context_class(command, info_name=line.text)
    given, left, _ = command.make_parser(context).parse_args(words)
    assert not left, f"{line.page}: too many words in edgeprefix {line.text}"
    missing = [
        option.name for option in command.params if option.required and not given.get(option.name)
    ]
    assert not missing, f"{line.page}: edgeprefix {line.text}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_an_option_that_a_page_names_exists(page: Path) -> None:
    """Of a command, or of a script under benchmarks/."""
    named = set(OPTION.findall(page.read_text(encoding="utf-8")))
    unknown = named - all_options() - options_of_scripts() - FOREIGN
    assert not unknown


def test_commands_have_no_options_of_their_framework() -> None:
    assert not all_options() & {"--install-completion", "--show-completion"}
