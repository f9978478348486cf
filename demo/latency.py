"""How long a token and a first token take in the runtime; what a prefix costs is timed by
benchmarks/bench/swaps.py.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from statistics import mean
from typing import Any

import numpy as np

from edgeprefix.runtime import Engine

_WARM_UP = 3


def summary(times_ms: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile of times in milliseconds; zeros when there were none (every text
    ended at its first token).
    """
    if not times_ms:
        return {"p50": 0.0, "p99": 0.0}
    p50, p99 = np.percentile(times_ms, [50, 99])
    return {"p50": float(p50), "p99": float(p99)}


def measure_latency(engine: Engine, requests: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """(task, input) requests one after another, greedy, timed from outside: what a caller waits
    for.
    """
    for task, text in requests[:_WARM_UP]:
        engine.generate(text, task=task, temperature=0.0)
    firsts, gaps, prompts = [], [], []
    for task, text in requests:
        first, between, prompt_tokens = _timed_stream(engine, task, text)
        firsts.append(first)
        gaps += between
        prompts.append(prompt_tokens)
    return {
        "requests": len(requests),
        "prompt_tokens": mean(prompts),
        "prefix_length": max(info.length for info in engine.tasks()),
        "first_token_ms": summary(firsts),
        "token_ms": summary(gaps),
        "decode_tokens_per_s": len(gaps) / max(sum(gaps) / 1000, 1e-9),
        "tokens": len(firsts) + len(gaps),
    }


def _timed_stream(engine: Engine, task: str, text: str) -> tuple[float, list[float], int]:
    """Milliseconds to the first token, between later ones, and the prompt's length in tokens."""
    began = time.perf_counter()
    stream = engine.stream(text, task=task, temperature=0.0)
    moments = [
        time.perf_counter()
        for piece in stream
        if piece.token is not None or piece.finish_reason is None
    ]
    completion = stream.completion()
    first = moments[0] if moments else time.perf_counter()
    between = [1000 * (after - before) for before, after in pairwise(moments)]
    return 1000 * (first - began), between, completion.prompt_tokens
