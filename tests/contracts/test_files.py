"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgeprefix.runtime.contracts.files import (
    atomic_folder,
    read_json,
    sha256_of_file,
    write_atomic,
)
from edgeprefix.runtime.errors import CheckpointError, OutputError


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


def everything(folder: Path) -> list[str]:
    """Folders that hold nothing but `x` and `y` are ours."""
    return ["x", "y"]


def test_a_folder_takes_its_place_only_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with atomic_folder(target, ours=everything) as building:
        (building / "x").write_text("1")
        assert not target.exists()
    assert (target / "x").read_text() == "1"
    with (
        pytest.raises(OutputError, match=r"exists already; choose another --out, or pass --force"),
        atomic_folder(target, ours=everything),
    ):
        pass
    with (
        pytest.raises(KeyError),
        atomic_folder(target, ours=everything, force=True) as building,
    ):
        (building / "x").write_text("2")
        raise KeyError
    assert (target / "x").read_text() == "1"
    with atomic_folder(target, ours=everything, force=True) as building:
        (building / "y").write_text("2")
    assert os.listdir(target) == ["y"]
    assert os.listdir(tmp_path) == ["bundle"]


@pytest.mark.parametrize("foreign", ["notes.txt", "chapters/one.txt", "x.old/x", ".hidden"])
def test_force_replaces_only_what_was_written_here(foreign: str, tmp_path: Path) -> None:
    target = tmp_path / "thesis"
    (target / foreign).parent.mkdir(parents=True)
    (target / foreign).write_text("years of work")
    (target / "x").write_text("ours")
    with (
        pytest.raises(OutputError, match=rf"thesis holds {foreign}, which this command does not"),
        atomic_folder(target, ours=everything, force=True),
    ):
        pass
    assert (target / foreign).read_text() == "years of work"
    (target / foreign).unlink()
    (target / ".DS_Store").write_text("")  # of a file manager, nobody's work
    with atomic_folder(target, ours=everything, force=True) as building:
        (building / foreign.replace("/", "-")).write_text("")


def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    """Neither a folder that was not there, nor a file put into one that was ours."""
    target = tmp_path / "bundle"
    with (
        pytest.raises(OutputError, match="exists already"),
        atomic_folder(target, ours=everything),
    ):
        target.mkdir()
        (target / "theirs").write_text("")
    with (
        pytest.raises(OutputError, match="is no folder"),
        atomic_folder(target / "theirs", ours=everything, force=True),
    ):
        pass
    (target / "theirs").unlink()
    with (
        pytest.raises(OutputError, match="holds theirs, which"),
        atomic_folder(target, ours=everything, force=True),
    ):
        (target / "theirs").write_text("")
    assert os.listdir(target) == ["theirs"]
    assert os.listdir(tmp_path) == ["bundle"]


def test_the_second_writer_of_a_folder_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with atomic_folder(target, ours=everything) as building:
        (building / "x").write_text("first")
        with (
            pytest.raises(OutputError, match=rf"being written by .* \(process {os.getpid()}\)"),
            atomic_folder(target, ours=everything, force=True),
        ):
            pass
        with atomic_folder(tmp_path / "other", ours=everything):
            pass
    assert (target / "x").read_text() == "first"
    assert sorted(os.listdir(tmp_path)) == ["bundle", "other"]


def test_many_writers_of_one_folder_at_once(tmp_path: Path) -> None:
    """One wins; the others are refused, whether they come before, during or after it."""
    start = threading.Barrier(8)

    def write(number: int) -> bool:
        start.wait()
        try:
            with atomic_folder(tmp_path / "bundle", ours=everything) as building:
                (building / "x").write_text(str(number))
        except OutputError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = [number for number, done in enumerate(pool.map(write, range(8))) if done]
    assert won == [int((tmp_path / "bundle" / "x").read_text())]
    assert os.listdir(tmp_path) == ["bundle"]


KILLED = """
import os, signal, sys
from pathlib import Path
from edgeprefix.runtime.contracts import files
target = Path(sys.argv[1])
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "file": os.fsync = die
if sys.argv[2] == "exchange":
    exchanged = files._exchanged
    files._exchanged = lambda *names: exchanged(*names) and die()
if sys.argv[2] == "swap":
    files._exchanged = lambda *_: False  # as on systems that cannot
    rename, done = os.replace, []
    os.replace = lambda *names: done.append(rename(*names)) or die()
if sys.argv[2] == "file":
    files.write_atomic(target, b"new")
with files.atomic_folder(target, ours=lambda folder: ["x"], force=True) as building:
    (building / "x").write_text("new")
    if sys.argv[2] == "folder": die()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("when", ["file", "folder", "swap", "exchange"])
def test_the_next_writer_clears_up_behind_a_killed_one(when: str, tmp_path: Path) -> None:
    """SIGKILL in the middle of a file, of a folder, between the two renames of a swap, and behind
    an exchange of names.
    """
    if when == "exchange" and sys.platform != "linux":
        pytest.skip("only Linux exchanges names")
    target = tmp_path / "target"
    target.write_text("old") if when == "file" else target.mkdir()
    if when != "file":
        (target / "x").write_text("old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(target), when], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) > 1
    (tmp_path / ".target.other.1a2b3c4d.tmp").write_text("of target.other")
    if when == "file":
        assert target.read_text() == "old"
        write_atomic(target, b"newer")
    else:
        with (
            pytest.raises(OutputError, match="exists already"),
            atomic_folder(target, ours=everything),
        ):
            pass
        assert (target / "x").read_text() == ("new" if when == "exchange" else "old")
    assert sorted(os.listdir(tmp_path)) == [".target.other.1a2b3c4d.tmp", "target"]


def test_a_file_that_is_being_written_is_not_taken_for_abandoned(tmp_path: Path) -> None:
    """Many threads write one file: each sweeps, none loses what it writes."""

    def write(number: int) -> None:
        for _ in range(20):
            write_atomic(tmp_path / "f", str(number).encode() * 1000)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len(set((tmp_path / "f").read_text())) == 1
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask to speak of")
def test_the_umask_is_never_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to the whole process: two threads that read it by setting it leave it at 0."""
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", None)
        write_atomic(tmp_path / "file", b"")
        with atomic_folder(tmp_path / "folder", ours=everything) as building:
            (building / "x").write_text("")
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750


def test_a_device_is_no_file_to_replace(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="pipe: it is no file; choose another name"):
        write_atomic(tmp_path / "pipe", b"")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_place_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match="cannot write"),
        atomic_folder(tmp_path / "file" / "bundle", ours=everything),
    ):
        pass


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "it is nested too deep; save it again"),
        (b'{"a": ' * 100_000 + b"1" + b"}" * 100_000, "it is nested too deep; save it again"),
        (b"\xff", "'utf-8' codec can't decode .*; save it again"),
        (b"{", "Expecting property name .*; save it again"),
    ],
)
def test_json_that_cannot_be_read(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"a.json cannot be read: {said}"):
        read_json(tmp_path / "a.json", CheckpointError, missing="", remedy="; save it again")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_json_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(CheckpointError, match="a.json cannot be read: .*it is no regular file"):
        read_json(tmp_path / "a.json", CheckpointError, missing="")
    with pytest.raises(CheckpointError, match="there is none"):
        read_json(tmp_path / "b.json", CheckpointError, missing="there is none")
