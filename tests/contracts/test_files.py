"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprefix.runtime.contracts.files import atomic_folder, sha256_of_file, write_atomic
from edgeprefix.runtime.errors import OutputError


def test_a_file_appears_whole_with_its_folder(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b.txt", b"one")
    write_atomic(tmp_path / "a" / "b.txt", b"two")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"two"
    assert os.listdir(tmp_path / "a") == ["b.txt"]
    assert (
        sha256_of_file(tmp_path / "a" / "b.txt")
        == "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"
    )


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """A real limit on file size in a real process stands in for the full disk."""
    target = tmp_path / "f"
    target.write_bytes(b"old")
    program = (
        "import resource, signal, sys\n"
        "from edgeprefix.runtime.contracts.files import write_atomic\n"
        "from edgeprefix.runtime.errors import OutputError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_atomic(sys.argv[1], b'x' * 100_000)\n"
        "except OutputError as error: print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(target)], capture_output=True, text=True, check=True
    )
    assert "cannot write" in result.stdout
    assert "the previous content is untouched" in result.stdout
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_a_folder_takes_its_place_only_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with atomic_folder(target) as building:
        (building / "x").write_text("1")
        assert not target.exists()
    assert (target / "x").read_text() == "1"
    with (
        pytest.raises(OutputError, match=r"exists already; choose another --out, or pass --force"),
        atomic_folder(target),
    ):
        pass
    with pytest.raises(KeyError), atomic_folder(target, force=True) as building:
        (building / "x").write_text("2")
        raise KeyError
    assert (target / "x").read_text() == "1"
    with atomic_folder(target, force=True) as building:
        (building / "y").write_text("2")
    assert os.listdir(target) == ["y"]
    assert os.listdir(tmp_path) == ["bundle"]


def test_a_place_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match="cannot write"),
        atomic_folder(tmp_path / "file" / "bundle"),
    ):
        pass
