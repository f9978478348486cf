"""transformers speaks to whoever runs a notebook; a command line has its own words and its own
bar.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from transformers.utils import logging

_log: Any = logging  # transformers has no types for its logging


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps transformers' warnings and progress bars off the terminal; both are as before
    afterwards.
    """
    verbosity, bars = _log.get_verbosity(), _log.is_progress_bar_enabled()
    _log.set_verbosity_error()
    _log.disable_progress_bar()
    try:
        yield
    finally:
        _log.set_verbosity(verbosity)
        if bars:
            _log.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """What a foreign error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
