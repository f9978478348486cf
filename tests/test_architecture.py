"""The packages: imports run one way, the runtime is light, everything is packaged."""

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
    "cli": {"runtime"},
    "train": {"base", "cli", "runtime"},
    "export": {"base", "cli", "runtime"},
    "bench": {"cli", "runtime", "page"},
    "demo": {"runtime", "base", "train", "export", "cli", "bench", "page"},
}
FOLDERS = {package: ROOT / package for package in MAY_IMPORT} | {"bench": ROOT / "benchmarks/bench"}
# Inside the runtime, from the lowest layer up: each sees only itself and those before it.
LAYERS = (
    "contracts",
    "decoding",
    "work",
    "scheduling",
    "generation",
    "scoring",
    "tasks",
    "engine",
)
SHARED = {"errors", "renamed", "version"}  # modules of `runtime` itself that every layer may import
RUNTIME_BUDGET = {"numpy", "onnxruntime", "tokenizers", "safetensors", "edgeprefix"}


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            yield f"{node.module}"


def test_temporary_folders_are_removed_by_who_made_them() -> None:
    """`mkdtemp` leaves its folder to whoever called it; thousands were found in /tmp."""
    for path in sorted(ROOT.glob("[!.]*/**/*.py")):
        names = {
            node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        }
        assert "mkdtemp" not in names, f"{path.relative_to(ROOT)}: use TemporaryDirectory"


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    for path in sorted(FOLDERS[package].rglob("*.py")):
        for module in imported_modules(path):
            if module.startswith("edgeprefix."):
                target = module.split(".")[1]
                assert target in allowed, (
                    f"{path.relative_to(ROOT)} imports {module}; "
                    f"{package} may see {sorted(allowed)}"
                )


@pytest.mark.parametrize("layer", LAYERS)
def test_the_layers_of_the_runtime_run_one_way(layer: str) -> None:
    allowed = {*LAYERS[: LAYERS.index(layer) + 1], *SHARED}
    for path in sorted((ROOT / "runtime" / layer).rglob("*.py")):
        for module in imported_modules(path):
            if module.startswith("edgeprefix.runtime"):
                target = module.removeprefix("edgeprefix.runtime").lstrip(".").split(".")[0]
                assert target in allowed, (
                    f"{path.relative_to(ROOT)} imports {module}: {layer} may see {sorted(allowed)}"
                )


def test_all_of_the_runtime_is_in_a_layer() -> None:
    folders = {path.parent.name for path in (ROOT / "runtime").glob("*/*.py")}
    assert folders == set(LAYERS)
    assert {path.stem for path in (ROOT / "runtime").glob("*.py")} == {"__init__", *SHARED}


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
        ".".join(("edgeprefix", package, *path.parent.relative_to(folder).parts))
        for package, folder in FOLDERS.items()
        for path in folder.rglob("*.py")
    }
    assert packages == set(settings["packages"]), (
        "list it in pyproject.toml: [tool.setuptools] packages"
    )


def test_the_changelog_knows_the_version() -> None:
    from edgeprefix.runtime.version import __version__

    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_any_selection_of_test_files_collects() -> None:
    """A helper of the tests is on the path and no other has its name; a conftest's name is
    everybody's, so nothing is imported from one.
    """
    pytest_settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]
    on_path = {ROOT / folder for folder in pytest_settings["ini_options"]["pythonpath"]}
    files = sorted((ROOT / "tests").rglob("*.py"))
    helpers = [path for path in files if not path.stem.startswith(("test_", "conftest"))]
    names = {path.stem for path in helpers}
    assert len(names) == len(helpers), "two helpers of one name"
    assert not names & set(sys.stdlib_module_names)
    assert {path.parent for path in helpers} <= on_path, "list it in pyproject.toml: pythonpath"
    for path in files:
        assert "conftest" not in imported_modules(path), f"{path}: give what is shared a module"
