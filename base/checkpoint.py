"""Where a base is: a checkpoint's folder as it stands, or a hub id, downloaded into the hub's own
cache.

`train` and `export` take a base the same way, so that a prefix and a bundle of one hub id carry one
name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from edgeprefix.runtime.errors import CheckpointError, MissingExtraError

_HUB_ID = re.compile(r"\w[\w.-]*(/[\w.-]+)?")
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"]


class Checkpoint(NamedTuple):
    """A base's folder, and what people call it: the folder's name, or the hub id."""

    folder: Path
    name: str


def find_checkpoint(base: str | Path) -> Checkpoint:
    """The checkpoint of a base, given as a folder or as a hub id (downloaded, or found in the hub's
    own cache).

    Raises CheckpointError when it is neither, MissingExtraError when a hub id is given and
    huggingface_hub is not installed.

    >>> find_checkpoint("checkpoints/base").name  # doctest: +SKIP
    'base'
    """
    folder = Path(base).expanduser()
    if folder.is_dir():
        return Checkpoint(folder, folder.resolve().name)
    if folder.exists():
        raise CheckpointError(
            f"base {base} is a file; give the checkpoint's folder, or a hub id such as org/model"
        )
    if folder.is_absolute() or not _HUB_ID.fullmatch(str(base)):
        raise CheckpointError(
            f"base {base}: no such folder; give the folder of a checkpoint, or a hub id such as "
            "org/model"
        )
    return Checkpoint(_download(str(base)), str(base))


def _download(hub_id: str) -> Path:
    try:
        from huggingface_hub import snapshot_download  # not at the top: the runtime needs no hub
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )
    except ImportError as error:
        raise MissingExtraError(
            f"base {hub_id} is no folder, and hub ids need huggingface_hub; type: pip install "
            "'edgeprefix[export]'"
        ) from error
    try:
        return Path(snapshot_download(hub_id, allow_patterns=_HUB_FILES))
    except (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OSError,
        ValueError,
    ) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"base {hub_id} is neither a folder nor a model on the hub that can be had: {reason}"
        ) from error
