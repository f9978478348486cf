"""Writes benchmarks/README.md: what each script shows, how it is called, and its result files.

    python benchmarks/index.py

All of it is taken from the scripts' own docstrings and from the names of the files in
benchmarks/results, which begin with their script's; a test fails when the page is stale, and when a
result file is nobody's.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE / "README.md"
_HEAD = """# Benchmarks

Written by `python benchmarks/index.py` from the scripts' docstrings; what a script needs and how
long it takes stands there as well. Scripts that need data sets look for them in `../shared/data`
and say so when they are not there. How results are kept: [CONTRIBUTING](../CONTRIBUTING.md).

| script | what it shows | command | results |
|---|---|---|---|
"""
_PREFIXES = {  # where files are not named after the script alone
    "benchmarks/training/run.py": ("training-cells", "training-few", "training-e2e"),
    "benchmarks/training/speed.py": ("training-speed",),
    "benchmarks/training/groups.py": ("training-groups",),
    "benchmarks/training/tries.py": ("training-tries",),
    "benchmarks/training/bases.py": ("training-bases",),
    "train/cli.py": ("training-start",),  # a run's own run.json
    "benchmarks/compile.py": ("compile", "compile_loss"),
    "benchmarks/engine.py": ("engine", "engine_sampling"),
    "benchmarks/race/__main__.py": ("race",),
    "benchmarks/bench/cli.py": ("bench",),
    "demo/cli.py": ("demo",),
    "tests/hostile/trial.py": ("hostile",),
    "tests/faults/kills.py": ("faults",),
    "tests/fuzz/fuzz.py": ("fuzz",),
}
_COMMANDS = {
    "benchmarks/bench/cli.py": "edgeprefix bench BUNDLE --json FILE",
    "demo/cli.py": "edgeprefix demo --out DIR",
    "train/cli.py": "edgeprefix train --base BASE --data FILE --task NAME --out RUN",
    "benchmarks/race/__main__.py": "python -m benchmarks.race run",
}
_HELPERS = {"index"}


class Script(NamedTuple):
    """A row of the page."""

    path: str
    shows: str
    command: str
    results: tuple[str, ...]


def scripts() -> list[Script]:
    """Whatever can be called: all scripts of this folder, and of others that write results here."""
    found = {path.relative_to(HERE.parent).as_posix() for path in HERE.glob("*.py")}
    found = {path for path in found if Path(path).stem not in _HELPERS} | {*_PREFIXES}
    return [_script(path) for path in sorted(found)]


def _script(path: str) -> Script:
    text = ast.get_docstring(ast.parse((HERE.parent / path).read_text(encoding="utf-8"))) or ""
    shows = " ".join(text.split("\n\n")[0].split())
    lines = (line.strip().split("   ")[0] for line in text.splitlines())
    commands = [line for line in lines if line.startswith(("python ", "make ", "edgeprefix "))]
    return Script(path, shows, _COMMANDS.get(path) or next(iter(commands), ""), _results(path))


def _results(path: str) -> tuple[str, ...]:
    prefixes = _PREFIXES.get(path, (Path(path).stem,))
    names = (file.name for file in sorted(RESULTS.iterdir()))
    return tuple(
        name
        for name in names
        if any(name.startswith((f"{prefix}-", f"{prefix}.")) for prefix in prefixes)
    )


def page() -> str:
    """The content of benchmarks/README.md."""
    rows = []
    for script in scripts():
        link = f"[{script.path}](../{script.path})"
        files = ", ".join(f"[{name}](results/{name})" for name in script.results) or "none kept"
        shows, command = (text.replace("|", "\\|") for text in (script.shows, script.command))
        rows.append(f"| {link} | {shows} | `{command}` | {files} |\n")
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
