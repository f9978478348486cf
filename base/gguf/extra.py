"""The package gguf (llama.cpp's own, the extra `[gguf]`): names of tensors, kinds of numbers."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from edgeprefix.runtime.errors import MissingExtraError


def gguf_package() -> Any:
    """The package. Raises MissingExtraError when it is not installed."""
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "a GGUF file as a base needs the package gguf; type: pip install 'edgeprefix[gguf]'"
        ) from error
    return gguf


def gguf_version() -> str:
    """The version of the package, for messages."""
    return importlib.metadata.version("gguf")
