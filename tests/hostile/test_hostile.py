"""A part of the hostile files, in seconds; all of them: `make test-hostile`."""

from __future__ import annotations

import pytest
from manifests import FIELDS, INNER
from prefix_files import BYTES, CHANGES, hostile_prefix_file
from trial import trial


@pytest.mark.timeout(120)
def test_hostile_files_are_refused() -> None:
    found = trial(prefix_files=600, manifests=400, tokenizers=200, swelling=4)
    for name, outcome in found.items():
        assert (outcome.accepted, outcome.foreign) == ([], []), name
        assert outcome.passed, (name, outcome)
    ways = found["prefix files"].ways
    assert set(ways) == {way.__name__ for way in (*CHANGES, *BYTES)}, "each way was tried"
    assert len(found["manifests"].ways) > len(FIELDS) + len(INNER) // 2


def test_one_seed_gives_one_file() -> None:
    assert hostile_prefix_file(7) == hostile_prefix_file(7)
    assert hostile_prefix_file(7) != hostile_prefix_file(8)
