"""What the numbers of a report are called, in which unit they are, and whether more of them is
better.
"""

from __future__ import annotations

from edgeprefix.page.units import rate_text, size_text, time_text

TITLES = {
    "token_ms_p50": "a token, median",
    "token_ms_p90": "a token, p90",
    "token_ms_p99": "a token, p99",
    "tokens_per_s": "tokens/s",
    "first_token_ms": "first token",
    "interpreter_ms": "interpreter",
    "import_ms": "import",
    "load_ms": "open the bundle",
    "total_ms": "all until the first token",
    "swap_ms_p50": "put in place, median",
    "swap_ms_p90": "put in place, p90",
    "swap_ms_p99": "put in place, p99",
    "load_ms_p50": "from disk, median",
    "load_ms_p90": "from disk, p90",
    "load_ms_p99": "from disk, p99",
    "mixed_tokens_per_s": "tokens/s, a task each",
    "single_task_tokens_per_s": "tokens/s, one task",
    "mixed_to_single_ratio": "mixed over one task",
    "with_prefix_ms": "first token behind the prefix",
    "as_text_ms": "first token, all as text",
    "text_to_prefix_ratio": "text over prefix",
    "batch_tokens_per_s": "tokens/s, full batch",
    "peak_bytes": "peak memory",
}


def title(name: str) -> str:
    """A number's name for people."""
    return TITLES.get(name, name)


def more_is_better(name: str) -> bool:
    """Rates and ratios are wanted high, times and bytes low."""
    return name.endswith(("_per_s", "_ratio"))


def shown(name: str, value: float) -> str:
    """A value with its unit."""
    if name.endswith("_per_s"):
        return rate_text(value)
    if name.endswith("_ratio"):
        return f"{value:.2f} ×"
    if name.endswith("_bytes"):
        return size_text(value)
    return time_text(value)
