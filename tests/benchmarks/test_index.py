"""The index of benchmarks says what is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def index() -> Any:
    spec = importlib.util.spec_from_file_location("index", ROOT / "benchmarks/index.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_fresh() -> None:
    module = index()
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "python benchmarks/index.py"


def test_every_script_says_how_it_is_called() -> None:
    for script in index().scripts():
        assert script.shows, script.path
        assert script.command, script.path


def test_every_result_is_some_scripts() -> None:
    module = index()
    owned = [name for script in module.scripts() for name in script.results]
    assert sorted(owned) == sorted(path.name for path in module.RESULTS.iterdir())
