"""Running out of memory, told from other errors by type, and turned into an error that says what to
lower.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch

from edgeprefix.runtime.errors import CapacityError

# torch's CPU allocator has no exception type of its own; this is how c10/core/impl/alloc_cpu.cpp
# begins its message on Linux, macOS and Windows.
_CPU_ALLOCATOR = re.compile(
    r"\[enforce fail at [^\]]*alloc_cpu\.cpp:\d+\].*"
    r"DefaultCPUAllocator: (can't allocate|not enough) memory"
)


@contextlib.contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Turns running out of memory into a CapacityError, "out of memory" and `what`; other errors
    pass.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise CapacityError(f"out of memory {what}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed: Python's, a device's, or that of torch's CPU
    allocator.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return type(error) is RuntimeError and _CPU_ALLOCATOR.match(str(error)) is not None
