"""Fixtures of the trainer's tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `import rows` from this folder

from edgeprefix.train import FrozenModel, load_base


@pytest.fixture(scope="session")
def llama(llama_base: Path) -> FrozenModel:
    return load_base(llama_base, precision="fp32")
