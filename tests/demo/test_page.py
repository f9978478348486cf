"""The report page from a hand-made report: it stands on its own, escapes what models write, and
shows the numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgeprefix.demo.page import render, score_text
from edgeprefix.page.units import size_text, time_text


def hand_made_report() -> dict[str, Any]:
    """A report with one task, as small as it may be."""
    training = {
        "steps": 20, "batch_size": 4, "seconds": 7.0,
        "curve": [{"step": 1, "loss": 3.0}, {"step": 20, "loss": 1.0}],
        "validation": [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.5}],
    }  # fmt: skip
    sample = {
        "input": "a < b",
        "base": "<script>alert(1)</script>",
        "prefix": "better & good",
        "reference": "best",
    }
    task = {
        "name": "trails",
        "title": "record → sentence",
        "metric": "bleu",
        "base": 3.25,
        "prefix": 61.5,
        "prefix_bytes": 231_000,
        "prefix_length": 100,
        "test_rows": 9,
        "training": training,
        "samples": [sample],
        "by_precision": {"fp32": {"prefix": 61.5}},
    }
    row = {"task": "trails", "input": "a", "text": "b", "equal": True}
    precision = {
        "bundle_bytes": 13_000_000,
        "decode_tokens_per_s": 812,
        "first_token_ms": 4.0,
        "max_difference_to_torch": 8.6e-6,
    }
    return {
        "tasks": [task],
        "swap_ms": {"p50": 0.021, "p99": 0.05},
        "load_ms": {"p50": 1.0, "p99": 2.0},
        "token_ms": {"p50": 1.2, "p99": 2.0},
        "first_token_ms": 4.0,
        "engine_load_ms": 150.0,
        "decode_tokens_per_s": 812.0,
        "latency": {
            "requests": 5,
            "prompt_tokens": 30,
            "prefix_length": 100,
            "swaps": 100,
            "loads": 3,
        },
        "mixed_equals_alone": True,
        "mixed": {"requests": 1, "equal": 1, "precisions": ["fp32"], "rows": [row]},
        "max_difference_to_torch": 8.6e-6,
        "torch_in_measuring_process": False,
        "precision": "fp32",
        "precisions": {"fp32": precision},
        "base": {"name": "base & co", "parameters": 3_200_000, "sha256": "ab" * 32},
        "seconds": {"train trails": 7.0, "total": 9.0},
        "seed": 0,
        "quick": False,
        "created": "1 May 2026, 10:00 UTC",
        "machine": {
            "processor": "some processor",
            "cores": 2,
            "memory_bytes": None,
            "system": "Linux",
        },
        "versions": {"edgeprefix": "0.1.0"},
        "commands": [{"what": "run", "command": "edgeprefix run b --input 'x'"}],
    }


def test_the_page_stands_on_its_own(assert_stands_alone: Callable[[str], None]) -> None:
    assert_stands_alone(render(hand_made_report()))


def test_what_models_write_is_escaped() -> None:
    page = render(hand_made_report())
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "better &amp; good" in page
    assert "base &amp; co" in page


def test_the_numbers_are_on_the_page() -> None:
    page = render(hand_made_report())
    for shown in (
        "61.5",
        "3.2",
        "812",
        "21 µs",
        "231 kB",
        "8.6e-06",
        "equal",
        "not in the measuring process",
    ):
        assert shown in page, shown


def test_a_mixed_batch_that_differs_is_not_hidden() -> None:
    report = hand_made_report()
    report["mixed"]["rows"][0]["equal"] = False
    page = render(report | {"mixed_equals_alone": False, "torch_in_measuring_process": True})
    assert "differs" in page
    assert "different" in page
    assert "WAS in the measuring process" in page


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (time_text(0.021), "21 µs"),
        (time_text(4.1), "4.10 ms"),
        (time_text(180.4), "180 ms"),
        (time_text(2400), "2.4 s"),
        (size_text(512), "512 bytes"),
        (size_text(6_000), "6.0 kB"),
        (size_text(231_000), "231 kB"),
        (size_text(13_200_000), "13.2 MB"),
        (size_text(16_000_000_000), "16.0 GB"),
        (score_text("accuracy", 0.867), "87 %"),
        (score_text("bleu", 52.34), "52.3"),
    ],
)
def test_numbers_for_people(shown: str, expected: str) -> None:
    assert shown == expected
