"""Where a base is: one rule for training and exporting, and one clear line when it is nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprefix.base.checkpoint import find_checkpoint
from edgeprefix.runtime.errors import CheckpointError


def test_a_folder_is_called_by_its_name(llama_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_checkpoint(llama_base) == (llama_base, llama_base.name)
    monkeypatch.chdir(llama_base)
    assert find_checkpoint(".").name == llama_base.name
    monkeypatch.setenv("HOME", str(llama_base.parent))
    assert find_checkpoint(f"~/{llama_base.name}").folder == llama_base


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (
            "/nowhere/else",
            "base /nowhere/else: no such folder; give the folder of a checkpoint, a GGUF file, or",
        ),
        ("./nowhere", "base ./nowhere: no such folder"),
        ("a/b/c", "base a/b/c: no such folder"),
    ],
)
def test_what_is_nowhere(base: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        find_checkpoint(base)


def test_a_file_is_no_folder(llama_base: Path) -> None:
    with pytest.raises(
        CheckpointError,
        match=r"config\.json is a file; give the checkpoint's folder, a GGUF file, or a hub id",
    ):
        find_checkpoint(llama_base / "config.json")
