"""Prefixes for the bundles of the tiny bases, and engines that know them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import TASKS, make_prefix
from command import Edgeprefix

from edgeprefix.runtime import Engine
from edgeprefix.runtime.contracts.manifest import Manifest


@pytest.fixture(scope="session", params=["llama", "gpt2"])
def bundle(request: pytest.FixtureRequest) -> Path:
    """Both architectures, one after the other."""
    folder: Path = request.getfixturevalue(f"{request.param}_bundle")
    return folder


@pytest.fixture(scope="session")
def base(bundle: Path, request: pytest.FixtureRequest) -> Path:
    """The checkpoint of `bundle`."""
    folder: Path = request.getfixturevalue(f"{bundle.name}_base")
    return folder


@pytest.fixture(scope="session")
def prefix_folder(llama_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four prefix files for the llama bundle."""
    folder = tmp_path_factory.mktemp("prefixes")
    manifest = Manifest.load(llama_bundle)
    for name, length in TASKS.items():
        make_prefix(manifest, name, length).save(folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="session")
def shared_engine(llama_bundle: Path, prefix_folder: Path) -> Iterator[Engine]:
    """One engine for tests that leave it as it was: 4 rows of 96 positions, four tasks."""
    with Engine.load(
        llama_bundle, prefixes=prefix_folder, max_batch=4, max_length=96, threads=1, chunk_tokens=8
    ) as engine:
        yield engine


@pytest.fixture
def engine(llama_bundle: Path, prefix_folder: Path) -> Iterator[Engine]:
    """An engine of one's own."""
    with Engine.load(
        llama_bundle, prefixes=prefix_folder, max_batch=4, max_length=96, threads=1, chunk_tokens=8
    ) as engine:
        yield engine


@pytest.fixture
def edgeprefix(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Edgeprefix:
    return Edgeprefix(capsys, monkeypatch)
