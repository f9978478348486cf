"""Numbers for people: bytes, times and rates, short enough for a table's cell or a bar's end."""

from __future__ import annotations


def size_text(count: float) -> str:
    """Bytes for people."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return (
                f"{count / size:.1f} {unit}" if count < 100 * size else f"{count / size:.0f} {unit}"
            )
    return f"{count:.0f} bytes"


def time_text(ms: float) -> str:
    """Milliseconds for people."""
    if ms >= 1000:
        return f"{ms / 1000:.1f} s"
    return f"{ms * 1000:.0f} µs" if ms < 0.1 else f"{ms:.2f} ms" if ms < 10 else f"{ms:.0f} ms"


def rate_text(per_s: float) -> str:
    """Tokens a second for people, without the unit: three figures or all of them."""
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.1f}" if per_s >= 10 else f"{per_s:.2f}"


def number_and_unit(text: str) -> tuple[str, str]:
    """What `size_text` and `time_text` give, apart."""
    number, _, unit = text.partition(" ")
    return number, unit
