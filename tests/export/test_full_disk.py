"""A disk that is really full: a small file system of its own, where the system lets us have one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeprefix.export import export_decoder
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.errors import OutputError


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory of half a megabyte: less than two bundles of a tiny base."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=640k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("the system does not let this user mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_nothing_is_half_written(llama_base: Path, small_disk: Path) -> None:
    """The first bundle fits; there is no space for a second one beside it, so the first stays as it
    is.
    """
    bundle = small_disk / "bundle"
    export_decoder(llama_base, bundle, verify=False)
    before = Manifest.load(bundle)
    with pytest.raises(
        OutputError, match=r"cannot write .*/other: No space left on device"
    ) as caught:
        export_decoder(llama_base, small_disk / "other", verify=False)
    assert "\n" not in str(caught.value)
    with pytest.raises(
        OutputError, match="No space left on device; the previous content is untouched"
    ):
        export_decoder(llama_base, bundle, force=True, verify=False)
    before.check_files(bundle, hashes=True)
    assert [path.name for path in small_disk.iterdir()] == ["bundle"]
