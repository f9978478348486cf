"""The wheel: its contents, its size, and what works where it is installed without extras."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import make_prefix

from edgeprefix.runtime import TaskPack
from edgeprefix.runtime.contracts.manifest import Manifest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
LARGEST_BYTES = 6_000_000
NOT_COPIED = (".*", "build", "*.egg-info", "__pycache__", "_build", "demo-report", "results")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no earlier build is in it."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*NOT_COPIED))
    check(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder, folder / "source")
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def edgeprefix(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The command `edgeprefix` of a fresh environment that has the wheel and no extra."""
    environment = tmp_path_factory.mktemp("environment")
    check(sys.executable, "-m", "venv", environment)
    python = environment / "bin" / "python"
    check(python, "-m", "pip", "install", "--constraint", ROOT / "constraints.txt", wheel)
    assert run(python, "-c", "import torch").returncode == 1
    return lambda *words, cwd: run(environment / "bin" / "edgeprefix", *words, cwd=cwd)


@pytest.fixture
def place(llama_bundle: Path, tmp_path: Path) -> Path:
    """A folder with `bundle`, a prefix file with labels, and rows."""
    (tmp_path / "bundle").symlink_to(llama_bundle)
    prefix = make_prefix(
        Manifest.load(llama_bundle), "mail", 4, pack=TaskPack(labels=("yes", "no"))
    )
    prefix.save(tmp_path / "mail.safetensors")
    rows = [{"input": "Where is it?", "target": "yes"}, {"input": "Thanks", "target": "no"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def run(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )


def check(*words: object) -> None:
    done = run(*words)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size <= LARGEST_BYTES


def test_it_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = [name for name in archive.namelist() if ".dist-info/" not in name]
    modules = {name for name in files if name.endswith(".py")}
    data = set(files) - modules
    assert modules == set(modules_of_the_source())
    embedded = {f"edgeprefix/demo/base/{path.name}" for path in (ROOT / "demo/base").iterdir()}
    assert {name for name in data if Path(name).name != "py.typed"} == embedded


def modules_of_the_source() -> list[str]:
    """The files of every package that pyproject.toml names, as a wheel calls them."""
    folders = SETTINGS["package-dir"]
    found = []
    for package in SETTINGS["packages"]:
        top = ".".join(package.split(".")[:2])
        folder = ROOT.joinpath(folders[top], *package.split(".")[2:])
        found += [f"{package.replace('.', '/')}/{path.name}" for path in folder.glob("*.py")]
    return found


def test_what_needs_no_torch_works_without_extras(edgeprefix: Run, place: Path) -> None:
    behind = ("--prefix", "mail.safetensors")
    both = ("mail.safetensors", "brief.safetensors", "--bundle", "bundle", "--task", "both")
    for words, expected in (
        (("--version",), "edgeprefix "),
        (("inspect", "bundle"), "precision"),
        (("inspect", "mail.safetensors"), "mail"),
        (("run", "bundle", *behind, "--input", "Hello", "--max-new-tokens", 4), "\n"),
        (("run", "bundle", *behind, "--data", "rows.jsonl", "--out", "out.jsonl"), "2 rows"),
        (("score", "bundle", *behind, "--data", "rows.jsonl"), "accuracy"),
        (
            ("compile", "bundle", "--text", "Hi.", "--task", "brief", "--out", "brief.safetensors"),
            "task brief",
        ),
        (("compose", *both, "--out", "both.safetensors"), "task both"),
        (("bench", "--help"), "--budget"),
    ):
        done = edgeprefix(*words, cwd=place)
        assert done.returncode == 0, (words, done.stderr)
        assert expected in done.stdout + done.stderr, (words, done)
    assert len((place / "out.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("train", "--base", "b", "--data", "d", "--task", "t", "--out", "o"), "train"),
        (("export", "decoder", "b", "--out", "o"), "export"),
        (("verify", "bundle", "--base", "b"), "export"),
        (("demo",), "demo"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_what_needs_more_names_the_extra(
    edgeprefix: Run, place: Path, words: tuple[str, ...], extra: str
) -> None:
    done = edgeprefix(*words, cwd=place)
    assert done.returncode == 1
    assert f"pip install 'edgeprefix[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
