"""Memory bandwidth as measured: threads that read arrays, each its own, with the dot product of
numpy's BLAS.

    OPENBLAS_NUM_THREADS=1 python -m edgeprefix.bench.memory_bandwidth '{"threads": 2,
    "bytes": 4000000}'

A decoding step reads all weights once, so bandwidth over weight bytes is what no kernel can beat.
Two working sets are read: one far larger than the caches, and one as large as the weights, which
may well lie in a cache. A process of its own: BLAS takes its number of threads from the
environment, before it is loaded.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import numpy as np

from edgeprefix.bench.machine_card import last_level_cache_bytes
from edgeprefix.runtime.decoding.machine import available_bytes

_BLAS_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
SINGLE_BLAS_THREAD = dict.fromkeys(_BLAS_VARIABLES, "1")
REPETITIONS = 7
_MIB = 1 << 20
_LEAST_SET = 256 * _MIB  # where the size of the last cache is not known
_SAMPLE_S = 0.02  # passes are repeated until a sample takes about so long


def read_bandwidth(
    total_bytes: int, threads: int, *, repetitions: int = REPETITIONS
) -> list[float]:
    """Bytes/s read from a working set of `total_bytes` shared out over `threads`, one sample for
    each repetition.
    """
    count = max(total_bytes // threads // 4, 1024)
    arrays = [np.ones(count, np.float32) for _ in range(threads)]
    once = _seconds(arrays, 1)
    passes = max(1, int(_SAMPLE_S / max(once, 1e-6)))
    return [4 * count * threads * passes / _seconds(arrays, passes) for _ in range(repetitions)]


def large_set_bytes() -> int:
    """A working set that no cache holds: eight times the last level, within a quarter of what is
    free.
    """
    wanted = max(8 * (last_level_cache_bytes() or 0), _LEAST_SET)
    free = available_bytes()
    return wanted if free is None else max(min(wanted, free // 4), 8 * _MIB)


def measure(threads: int, weight_bytes: int) -> dict[str, Any]:
    """Samples of bytes/s from memory and from a working set of the weights' size."""
    large = large_set_bytes()
    return {
        "memory": read_bandwidth(large, threads),
        "memory_one_thread": read_bandwidth(large // threads, 1),
        "weights": read_bandwidth(min(weight_bytes, large), threads),
        "working_set_bytes": large,
    }


def _seconds(arrays: list[np.ndarray[Any, np.dtype[np.float32]]], passes: int) -> float:
    """All threads begin together; the clock runs until the last has read its array `passes`
    times.
    """
    gate = threading.Barrier(len(arrays) + 1)

    def read(array: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        gate.wait()
        for _ in range(passes):
            np.dot(array, array)  # one stream is read; BLAS lets go of the interpreter's lock

        gate.wait()

    readers = [threading.Thread(target=read, args=(array,)) for array in arrays]
    for reader in readers:
        reader.start()
    gate.wait()
    started = time.perf_counter()
    gate.wait()
    took = time.perf_counter() - started
    for reader in readers:
        reader.join()
    return took


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    sys.stdout.write(json.dumps(measure(job["threads"], job["bytes"])) + "\n")
