"""Where a base is: a checkpoint's folder as it stands, or a hub id, downloaded into the hub's own
cache.

`train` and `export` take a base the same way, so that a prefix and a bundle of one hub id carry one
name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from edgeprefix.base.config import read_config
from edgeprefix.base.hub import download
from edgeprefix.runtime.errors import CheckpointError

_HUB_ID = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


class Checkpoint(NamedTuple):
    """A base's folder, and what people call it: the folder's name, or the hub id."""

    folder: Path
    name: str


def find_checkpoint(base: str | Path, *, revision: str | None = None) -> Checkpoint:
    """The checkpoint of a base, given as a folder or as a hub id (downloaded, or found in the hub's
    own cache; what cannot be a base is refused before its weights are fetched).

    `revision` is a hub id's branch, tag or commit; its main branch when not given. Raises
    CheckpointError when it is neither folder nor hub id, UnsupportedBaseError when it is of a kind
    that cannot be a base.

    >>> find_checkpoint("checkpoints/base").name  # doctest: +SKIP
    'base'
    """
    folder = Path(base).expanduser()
    if folder.exists() and revision is not None:
        raise CheckpointError(
            f"base {base} is on this machine, and revision {revision} is one of the hub's; leave "
            "the revision out"
        )
    if folder.is_dir():
        return Checkpoint(folder, folder.resolve().name)
    if folder.exists():
        raise CheckpointError(_file_refusal(folder, base))
    if folder.is_absolute() or not _HUB_ID.fullmatch(str(base)):
        raise CheckpointError(
            f"base {base}: no such folder; give the folder of a checkpoint, or a hub id such as "
            "org/model"
        )
    return Checkpoint(download(str(base), revision, read_config), str(base))


def _file_refusal(file: Path, base: str | Path) -> str:
    if file.suffix.lower() == ".gguf":
        return (
            f"base {base} is a GGUF file, which this version cannot read; give the folder or the "
            "hub id of the checkpoint that it was made of"
        )
    return f"base {base} is a file; give the checkpoint's folder, or a hub id such as org/model"
