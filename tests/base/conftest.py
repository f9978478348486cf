"""A copy of a tiny checkpoint, to be changed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `import checkpoints`


@pytest.fixture
def copy(llama_base: Path, tmp_path: Path) -> Path:
    return shutil.copytree(llama_base, tmp_path / "copy")
