"""The corpus of the fuzzers, run once: what was found stays fixed."""

from __future__ import annotations

from pathlib import Path

import pytest
from targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
INPUTS = [(target, path) for target in TARGETS for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize(("target", "path"), INPUTS, ids=[f"{a}-{b.name}" for a, b in INPUTS])
def test_the_corpus_breaks_no_promise(target: str, path: Path) -> None:
    TARGETS[target](path.read_bytes())


def test_the_corpus_is_small_and_has_inputs_that_are_taken() -> None:
    assert {target for target, _ in INPUTS} == set(TARGETS)
    assert sum(path.stat().st_size for _, path in INPUTS) < 200_000
