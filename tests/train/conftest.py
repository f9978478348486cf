"""Fixtures of the trainer's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprefix.train import FrozenModel, load_base


@pytest.fixture(scope="session")
def llama(llama_base: Path) -> FrozenModel:
    return load_base(llama_base, precision="fp32")
