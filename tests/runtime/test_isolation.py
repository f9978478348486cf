"""No request ever sees anything of another: thousands of scripted interleavings, and proof that
they notice broken code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from interleavings import (
    KINDS,
    CountingDecoder,
    Stage,
    draw_script,
    numbers_of,
    scripted_engine,
    tokens_of,
    with_other_content,
)

from edgeprefix.runtime.decoding.cache import Cache

STRUCTURED = (*(kind for kind in KINDS if kind != "lookup"), "score")
"""Kinds whose runs of the graph do not depend on what the texts say."""


@pytest.fixture(scope="module")
def stage(llama_bundle: Path) -> Iterator[Stage]:
    with scripted_engine(llama_bundle) as engine:
        yield Stage(engine)


def test_thousands_of_interleavings_give_what_each_request_gives_alone(stage: Stage) -> None:
    results = sum(stage.check(draw_script(seed)) for seed in range(2000))
    assert results > 7000


@pytest.mark.slow
def test_tens_of_thousands_of_interleavings(stage: Stage) -> None:
    assert sum(stage.check(draw_script(seed)) for seed in range(10_000, 50_000)) > 100_000


@pytest.mark.parametrize("name", ["llama_bundle", "gpt2_bundle", "int4_bundle"])
def test_bit_identical_when_only_the_content_of_others_changes(
    name: str, request: pytest.FixtureRequest
) -> None:
    with scripted_engine(request.getfixturevalue(name)) as engine:
        stage = Stage(engine)
        for seed in range(150):
            script = draw_script(seed, kinds=STRUCTURED)
            if script[0].ask is None:
                continue
            (_, _, before), *others = stage.play(script)
            (_, _, after), *changed = stage.play(with_other_content(script))
            assert tokens_of(after) == tokens_of(before), script
            assert numbers_of(after) == numbers_of(before), script
            if len(others) > 3:
                assert [numbers_of(one) for *_, one in others] != [
                    numbers_of(one) for *_, one in changed
                ]


def test_a_steady_int4_engine_depends_on_no_company(int4_bundle: Path) -> None:
    with scripted_engine(int4_bundle, steady=True) as engine:
        stage = Stage(engine)
        assert sum(stage.check(draw_script(seed, kinds=STRUCTURED)) for seed in range(200)) > 500


# Broken code must show ----------------------------------------------------------------------------


class NeverMoves(Cache):
    """A lane that moves leaves its keys behind."""

    def copy(self, source: int, target: int, *, start: int, stop: int) -> None:
        pass


class MovesTooLittle(Cache):
    """The newest position is left behind."""

    def copy(self, source: int, target: int, *, start: int, stop: int) -> None:
        super().copy(source, target, start=start, stop=stop - 1)


class KeepsTheOldPrefix(Cache):
    """A slot that once had a prefix keeps its last position."""

    def write(self, slot: int, packed: Sequence[Any]) -> None:
        super().write(slot, [part[:, :, :, :-1] if part.shape[3] > 1 else part for part in packed])


class GathersInTurn(Cache):
    """A beam is overwritten before another one has read it."""

    def gather(
        self, sources: Sequence[int], targets: Sequence[int], *, start: int, stop: int
    ) -> None:
        for source, target in zip(sources, targets, strict=True):
            self.copy(source, target, start=start, stop=stop)


class ConfusesRows(CountingDecoder):
    """With three rows the last two get each other's logits."""

    def step(self, tokens: Sequence[int], lengths: Sequence[int]) -> Any:
        logits = super().step(tokens, lengths)
        return logits[[0, 2, 1]] if len(tokens) == 3 else logits


class SeesTooFar(CountingDecoder):
    """A row reads one position beyond its own text."""

    def step(self, tokens: Sequence[int], lengths: Sequence[int]) -> Any:
        return super().step(
            tokens, [length + 1 for length in lengths] if len(lengths) > 1 else lengths
        )


@pytest.mark.parametrize(
    "broken",
    [
        {"cache": NeverMoves},
        {"cache": MovesTooLittle},
        {"cache": KeepsTheOldPrefix},
        {"cache": GathersInTurn},
        {"decoder": ConfusesRows},
        {"decoder": SeesTooFar},
    ],
    ids=lambda broken: next(iter(broken.values())).__name__,
)
def test_broken_code_is_noticed(llama_bundle: Path, stage: Stage, broken: dict[str, Any]) -> None:
    with scripted_engine(llama_bundle, **broken) as engine:
        wrong = Stage(engine, alone=stage)
        with pytest.raises(AssertionError):
            for seed in range(300):
                wrong.check(draw_script(seed))
