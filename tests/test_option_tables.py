"""One table of options: command lines, documentation and types are derived from it and up to
date.
"""

from __future__ import annotations

import importlib.util
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from edgeprefix.cli.compile import compile_app
from edgeprefix.cli.flags import flags_from
from edgeprefix.cli.run import run_app
from edgeprefix.runtime.contracts.generation_options import GenerationOptions
from edgeprefix.runtime.contracts.option import Kind, Option, options_of
from edgeprefix.runtime.generation.options import Settings
from edgeprefix.train.cli import train_app
from edgeprefix.train.config import PrefixConfig, TrainConfig

ROOT = Path(__file__).parents[1]
TABLES = (GenerationOptions, PrefixConfig, TrainConfig)
# Names that users know
GENERATION_FLAGS = """
--max-new-tokens --min-new-tokens --temperature --top-k --top-p --min-p --typical-p
--repetition-penalty --presence-penalty --frequency-penalty --no-repeat-ngram --ban --force-word
--begin-with --stop --seed --n --beams --length-penalty --logprobs --lookup
"""
TRAINING_FLAGS = """
--length --init --init-text --reparam --no-reparam --mlp-width --sink --no-sink --prompt-tuning
--dropout --prompt-dropout --epochs --steps --lr --value-lr-ratio --batch-size --accumulation
--warmup --weight-decay --clip --label-smoothing --seed --precision --device --weights --metric
--objective --validate-every --validation-rows --patience --max-tokens --recompute --tensorboard
"""


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    """docs/tables.py."""
    place = importlib.util.spec_from_file_location("tables", ROOT / "docs/tables.py")
    assert place is not None
    assert place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


@pytest.mark.parametrize("table", TABLES)
def test_every_option_says_what_it_is_for_and_what_it_takes(table: type) -> None:
    for one in options_of(table):
        assert one.facts.help.endswith("."), one.name
        assert one.expected, one.name
        assert one.problem(one.default) is None, one.name
        assert one.kind not in (Kind.WHOLE, Kind.NUMBER) or str(one.facts.range), one.name
        assert one.default is not None or one.facts.unset or one.name == "logprobs", one.name


def test_what_is_written_from_the_tables_is_up_to_date(tables: ModuleType) -> None:
    stale = [str(path.relative_to(ROOT)) for path in tables.stale()]
    assert not stale, f"{', '.join(stale)}: run python docs/tables.py"


def test_a_stale_page_is_noticed(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("engine.md", "training.md"):
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("likeliest tokens; 0", "best tokens; 0"))
    monkeypatch.setattr(tables, "DOCS", tmp_path)
    monkeypatch.setattr(tables, "SETTINGS", tmp_path / "settings.py")
    assert {path.name for path in tables.stale()} == {"engine.md", "settings.py"}
    (tmp_path / "engine.md").write_text("no marks")
    with pytest.raises(SystemExit, match=r"docs/engine\.md lacks the marks"):
        tables.stale()


def test_types_for_callers_are_those_of_the_table() -> None:
    """Several texts may come in any form; all else is what the dataclass has."""
    wanted = typing.get_type_hints(GenerationOptions)
    wanted |= {
        one.name: str | Sequence[str]
        for one in options_of(GenerationOptions)
        if one.kind is Kind.TEXTS
    }
    assert typing.get_type_hints(Settings) == wanted
    assert not Settings.__required_keys__


def shown_help(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> str:
    """`--help` as one line of words, without the frame."""
    monkeypatch.setenv("COLUMNS", "5000")
    monkeypatch.setenv("TERMINAL_WIDTH", "5000")
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0, result.output
    return re.sub(r"[\s│]+", " ", result.output)


@pytest.mark.parametrize(
    ("app", "options", "flags"),
    [
        (run_app, options_of(GenerationOptions), GENERATION_FLAGS),
        (
            train_app,
            (*options_of(PrefixConfig), *options_of(TrainConfig)),
            TRAINING_FLAGS,
        ),
        (
            compile_app,
            [one for one in options_of(GenerationOptions) if one.name == "stop"],
            "--stop",
        ),
    ],
)
def test_help_shows_every_option(
    app: typer.Typer,
    options: Sequence[Option],
    flags: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = shown_help(app, monkeypatch)
    for one in options:
        assert f" {one.flag} " in text
        assert one.facts.help in text, one.name
        assert str(one.facts.range) in text, one.name
    for flag in flags.split():
        assert f" {flag} " in text
    assert "NAME[@CONFIGURATION][:SPLIT]" in text or app is not train_app


TYPED: dict[Kind, tuple[list[str], Any]] = {
    Kind.WHOLE: (["3"], 3),
    Kind.NUMBER: (["0.5"], 0.5),
    Kind.TEXT: (["x"], "x"),
    Kind.TEXTS: (["a b", "c"], ("a b", "c")),
    Kind.BY_TOKEN: (["48:2.5", "7:-inf"], {48: 2.5, 7: float("-inf")}),
}


@pytest.mark.parametrize("table", TABLES)
def test_what_is_typed_reaches_the_command(table: type) -> None:
    """Each flag alone, and nothing else with it."""
    seen: list[Mapping[str, Any]] = []
    app = typer.Typer()

    @app.command()
    @flags_from(settings=table)
    def command(name: str = "", *, settings: dict[str, Any]) -> None:
        seen.append({"name": name, **settings})

    for one in options_of(table):
        texts, value = TYPED.get(one.kind, ([], True))
        words = [word for text in texts for word in (one.flag, text)] or [one.flag]
        if one.facts.choices:
            value = one.facts.choices[-1]
            words = [one.flag, str(value)]
        result = CliRunner().invoke(app, ["--name", "n", *words])
        assert result.exit_code == 0, result.output
        assert seen.pop() == {"name": "n", one.name: value}
    assert CliRunner().invoke(app, []).exit_code == 0
    assert seen.pop() == {"name": ""}


def test_a_bias_that_cannot_be_read_is_wrong_usage() -> None:
    result = CliRunner().invoke(run_app, ["bundle", "--input", "x", "--logit-bias", "48=2"])
    assert result.exit_code == 2
    assert "expected TOKEN:NUMBER, such as 48:2.5 or 7:-inf" in re.sub(
        r"[\s│]+", " ", result.output
    )
