"""Fixtures that all test folders share: tiny checkpoints, made once a session."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `import tiny` from every test folder

from tiny import save_checkpoint, tiny_gpt2, tiny_llama, tiny_mistral

# Jobs in the background start with Ctrl-C ignored, and so do their children; tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["EDGEPREFIX_CACHE"] = tempfile.mkdtemp(prefix="edgeprefix-tests-")  # not the user's own
SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def llama_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tiny_llama(), tmp_path_factory.mktemp("base") / "tiny-llama")


@pytest.fixture(scope="session")
def gpt2_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tiny_gpt2(), tmp_path_factory.mktemp("base") / "tiny-gpt2")


@pytest.fixture(scope="session")
def mistral_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tiny_mistral(), tmp_path_factory.mktemp("base") / "tiny-mistral")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and data beside the project; tests that read it skip where it is
    not.
    """
    if not SHARED.is_dir():
        pytest.skip("needs the folder ../shared with real models and data")
    return SHARED
