"""Old names that still work for one release: `prefix=` as the name of a task is now `task=`."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from edgeprefix.runtime.errors import RequestError

P = ParamSpec("P")
R = TypeVar("R")


def warn_renamed(old: str, new: str) -> None:
    """Says so at the line of the caller's caller."""
    warnings.warn(
        f"{old} is deprecated and goes away in the next release; write {new}",
        DeprecationWarning,
        stacklevel=3,
    )


def takes_prefix_as_task(call: Callable[P, R]) -> Callable[P, R]:
    """Lets callers of `call(…, task=)` still write `prefix=`. Both at once are a RequestError."""

    @functools.wraps(call)
    def renamed(*args: P.args, **kwargs: P.kwargs) -> R:
        if "prefix" not in kwargs:
            return call(*args, **kwargs)
        if "task" in kwargs:
            raise RequestError("prefix= is the old name of task=; give task= alone")
        warn_renamed("prefix=", "task=")
        old = cast(dict[str, Any], kwargs)
        old["task"] = old.pop("prefix")
        return call(*args, **kwargs)

    return renamed
