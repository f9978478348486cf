"""A copy of a tiny checkpoint, to be changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def copy(llama_base: Path, tmp_path: Path) -> Path:
    return shutil.copytree(llama_base, tmp_path / "copy")
