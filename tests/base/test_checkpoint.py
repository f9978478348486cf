"""Where a base is: one rule for training and exporting, and one clear line when it is nowhere."""

from __future__ import annotations

import os
import shutil
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_anywhere_in_a_checkpoint_is_refused(llama_base: Path, tmp_path: Path) -> None:
    """Before a library waits for its writer for ever: whichever file it stands for."""
    names = [path.name for path in llama_base.iterdir()]
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= {*names}
    for name in (*names, "generation_config.json", "notes.txt"):
        base = shutil.copytree(llama_base, tmp_path / "base", dirs_exist_ok=True)
        (base / name).unlink(missing_ok=True)
        os.mkfifo(base / name)
        with pytest.raises(CheckpointError, match=f"cannot be read: {name} is no regular file"):
            find_checkpoint(base)
        (base / name).unlink()
    (base / "gone.json").symlink_to("nowhere")  # what nobody asks for is nobody's problem
    assert find_checkpoint(shutil.copytree(llama_base, base, dirs_exist_ok=True)).folder == base
