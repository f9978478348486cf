"""A base from the hub: its configuration first, then, when nothing speaks against it, the files
that it is made of.

Everything comes from one commit: the one that `revision` (a branch, a tag, a commit) means when the
configuration is fetched. What the hub's own cache holds is not fetched again, and without a network
(`HF_HUB_OFFLINE=1`) the cache alone is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

from edgeprefix.base.gguf.reader import part_names
from edgeprefix.base.weight_files import INDEX_FILE, WEIGHTS_FILE, index_names
from edgeprefix.runtime.errors import CheckpointError

_SMALL_FILES = [
    "*.json",
    "*.jinja",
    "*.model",
    "merges.txt",
    "vocab.txt",
]
_REFUSALS = (HfHubHTTPError, HFValidationError, EntryNotFoundError, OSError, ValueError)
_OTHERS = ["*/*.json", "*/*.model"]  # of other formats, kept in folders of their own (onnx/, …)


def download(hub_id: str, revision: str | None, check: Callable[[Path], Any]) -> Path:
    """The folder of a hub model in the hub's own cache.

    `check` is given a folder that holds the configuration, before anything else is fetched, and
    raises what it has against it. Raises CheckpointError when the model cannot be had.
    """
    named = hub_id if revision is None else f"{hub_id}, revision {revision}"
    try:
        config = Path(hf_hub_download(hub_id, "config.json", revision=revision))
    except _REFUSALS as error:
        raise _unavailable(named, error) from error
    check(config.parent)
    commit = config.parent.name  # …/snapshots/COMMIT/config.json

    def fetch(patterns: list[str]) -> Path:
        return Path(
            snapshot_download(
                hub_id, revision=commit, allow_patterns=patterns, ignore_patterns=_OTHERS
            )
        )

    try:
        folder = fetch(_SMALL_FILES)
        index = folder / INDEX_FILE
        fetch(index_names(index) if index.is_file() else [WEIGHTS_FILE])
    except _REFUSALS as error:
        raise _unavailable(named, error) from error
    return folder


def download_gguf(hub_id: str, file: str, revision: str | None) -> Path:
    """A GGUF file of a hub model in the hub's own cache, with the other parts of its model.

    Raises CheckpointError when it cannot be had.
    """
    named = f"{hub_id}/{file}" if revision is None else f"{hub_id}/{file}, revision {revision}"
    try:
        found = [
            Path(hf_hub_download(hub_id, name, revision=revision)) for name in part_names(file)
        ]
    except _REFUSALS as error:
        raise _unavailable(named, error) from error
    return found[0]


def _unavailable(named: str, error: BaseException) -> CheckpointError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return CheckpointError(
        f"base {named} is neither on this machine nor a model on the hub that can be had: {reason}"
    )
