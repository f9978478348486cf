"""Pages of a mapped checkpoint that were read are given back, whatever its file is called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgeprefix.base.mapped import give_back

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")


@pytest.mark.parametrize(
    "blob", ["model.safetensors", "9f86d081884c7d659a2f", "a name with spaces"]
)
def test_pages_of_a_mapped_checkpoint_are_given_back(blob: str, tmp_path: Path) -> None:
    """And only those: memory of any other kind keeps its numbers, and so do the file's. In the
    hub's cache a model's files are links to blobs that are named by their hashes.
    """
    numbers = torch.arange(1 << 20, dtype=torch.float32)
    (tmp_path / "blobs").mkdir()
    save_file({"weight": numbers}, tmp_path / "blobs" / blob)
    link = tmp_path / "model.safetensors"
    link.symlink_to(Path("blobs") / blob)
    mapped = torch.from_file(str(link), size=1 << 20, dtype=torch.float32)  # header and all
    total = mapped.sum()  # touches all pages
    before = resident_file_bytes()
    give_back(mapped)
    assert resident_file_bytes() <= before - mapped.nbytes // 2
    assert torch.equal(mapped.sum(), total)


def test_other_memory_is_left_alone(tmp_path: Path) -> None:
    numbers = torch.arange(1 << 20, dtype=torch.float32)
    give_back(numbers)
    assert torch.equal(numbers, torch.arange(1 << 20, dtype=torch.float32))
    (tmp_path / "plain").write_bytes(os.urandom(1 << 22))
    mapped = torch.from_file(str(tmp_path / "plain"), size=1 << 22, dtype=torch.uint8)
    mapped[:] = 7  # written to, in this process alone
    give_back(mapped)
    assert bool((mapped == 7).all())


def resident_file_bytes() -> int:
    return int(Path("/proc/self/status").read_text().partition("RssFile:")[2].split()[0]) * 1024
