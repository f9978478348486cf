"""Fixtures that all test folders share: tiny checkpoints and bundles, made once a session."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest

from tiny import save_checkpoint, tiny_gpt2, tiny_llama, tiny_mistral

# Jobs in the background start with Ctrl-C ignored, and so do their children; tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)
_CACHE = tempfile.TemporaryDirectory(prefix="edgeprefix-tests-")  # removed when Python ends
os.environ["EDGEPREFIX_CACHE"] = _CACHE.name  # not the user's own
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
def llama_bundle(llama_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(llama_base, tmp_path_factory.mktemp("bundle") / "llama")


@pytest.fixture(scope="session")
def gpt2_bundle(gpt2_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(gpt2_base, tmp_path_factory.mktemp("bundle") / "gpt2")


@pytest.fixture(scope="session")
def int4_bundle(llama_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(llama_base, tmp_path_factory.mktemp("bundle") / "llama-int4", precision="int4")


def export(base: Path, folder: Path, *, precision: str = "fp32") -> Path:
    from edgeprefix.export import export_decoder  # here, since most tests need no torch.onnx

    export_decoder(base, folder, precision=precision, verify=False)
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and data beside the project; tests that read it skip where it is
    not.
    """
    if not SHARED.is_dir():
        pytest.skip("needs the folder ../shared with real models and data")
    return SHARED
