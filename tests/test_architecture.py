"""The house itself: imports run one way, the runtime is light, everything is packaged."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "runtime": set(),
    "page": set(),
    "base": {"runtime"},
    "train": {"base", "runtime"},
    "export": {"base", "runtime"},
    "bench": {"runtime", "page"},
    "demo": {"runtime", "base", "train", "export", "bench", "page"},
}
FOLDERS = {package: ROOT / package for package in MAY_IMPORT} | {"bench": ROOT / "benchmarks/bench"}
# Inside the runtime, from the ground up: each sub-package sees only itself and those before it.
FLOORS = (
    "contracts",
    "decoding",
    "work",
    "scheduling",
    "generation",
    "scoring",
    "tasks",
    "engine",
    "cli",
)
GROUND = {"errors", "renamed", "version"}  # modules of `runtime` itself that every floor may import
RUNTIME_BUDGET = {"numpy", "onnxruntime", "tokenizers", "safetensors", "edgeprefix"}


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            yield f"{node.module}"


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_run_one_way(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room}
    for path in sorted(FOLDERS[room].rglob("*.py")):
        for module in imported_modules(path):
            if module.startswith("edgeprefix."):
                target = module.split(".")[1]
                assert target in allowed, (
                    f"{path.relative_to(ROOT)} imports {module}: {room} may see {sorted(allowed)}"
                )


@pytest.mark.parametrize("floor", FLOORS)
def test_the_floors_of_the_runtime_run_one_way(floor: str) -> None:
    allowed = {*FLOORS[: FLOORS.index(floor) + 1], *GROUND}
    for path in sorted((ROOT / "runtime" / floor).rglob("*.py")):
        for module in imported_modules(path):
            if module.startswith("edgeprefix.runtime"):
                target = module.removeprefix("edgeprefix.runtime").lstrip(".").split(".")[0]
                assert target in allowed, (
                    f"{path.relative_to(ROOT)} imports {module}: {floor} may see {sorted(allowed)}"
                )


def test_all_of_the_runtime_stands_on_a_floor() -> None:
    folders = {path.parent.name for path in (ROOT / "runtime").glob("*/*.py")}
    assert folders == set(FLOORS)
    assert {path.stem for path in (ROOT / "runtime").glob("*.py")} == {"__init__", *GROUND}


def test_import_budget_of_the_runtime() -> None:
    """`import edgeprefix.runtime` in a fresh process: which packages do OUR modules ask for, and is
    torch among all?
    """
    program = (
        "import builtins, json, sys\n"
        "asked, original = set(), builtins.__import__\n"
        "def watched(name, globals=None, locals=None, fromlist=(), level=0):\n"
        "    if (globals or {}).get('__name__', '').startswith('edgeprefix.'): "
        "asked.add(name.split('.')[0])\n"
        "    return original(name, globals, locals, fromlist, level)\n"
        "builtins.__import__ = watched\n"
        "import edgeprefix.runtime\n"
        "print(json.dumps([sorted(asked), sorted(sys.modules)]))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    asked, loaded = json.loads(result.stdout)
    foreign = set(asked) - RUNTIME_BUDGET - set(sys.stdlib_module_names)
    assert not foreign, f"the runtime imports {sorted(foreign)}"
    # asyncio brings ssl, 7 MB; `Engine.agenerate` and `astream` import it when they are called.
    heavy = {"torch", "transformers", "onnx", "typer", "rich", "pandas", "asyncio"} & set(loaded)
    assert not heavy, f"importing the runtime loads {sorted(heavy)}"


def test_every_folder_with_code_is_packaged() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {
        ".".join(("edgeprefix", room, *path.parent.relative_to(folder).parts))
        for room, folder in FOLDERS.items()
        for path in folder.rglob("*.py")
    }
    assert packages == set(settings["packages"]), (
        "list it in pyproject.toml: [tool.setuptools] packages"
    )


def test_the_changelog_knows_the_version() -> None:
    from edgeprefix.runtime.version import __version__

    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
