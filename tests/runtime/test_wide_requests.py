"""Requests of several sequences: those behind them do not wait for as many free slots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from interleavings import scripted_engine
from test_lifetimes import LONG, GatedDecoder, gate

from edgeprefix.runtime import Completion, Engine, Request
from edgeprefix.runtime.scheduling.waiting import PATIENCE
from edgeprefix.runtime.work.ticket import Ticket


@pytest.fixture
def gated(llama_bundle: Path) -> Iterator[Engine]:
    with scripted_engine(llama_bundle, decoder=GatedDecoder) as engine:
        yield engine
        gate(engine).open()


class Order:
    """The names of requests as they end."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.ended = engine, list[str]()
        self._tickets: list[Ticket[Completion]] = []

    def submit(self, name: str, **settings: Any) -> None:
        ticket = self._engine.submit(Request("x", **settings))
        ticket.when_done(lambda _: self.ended.append(name))
        self._tickets.append(ticket)

    def run(self) -> list[Completion]:
        gate(self._engine).open()
        return [ticket.result(timeout_s=60) for ticket in self._tickets]


def texts(completion: Completion) -> list[tuple[int, ...]]:
    return [one.tokens for one in (completion, *completion.alternatives)]


@pytest.mark.parametrize("free", [1, 2, 3, 4])
def test_samples_begin_in_the_slots_that_are_free(
    gated: Engine, shared_engine: Engine, free: int
) -> None:
    """Whatever is free, they are the samples that the request gets alone."""
    many: dict[str, Any] = {"n": 4, "temperature": 1.0, "seed": 1, "max_new_tokens": 9}
    order = Order(gated)
    for _ in range(4 - free):
        order.submit("running", **LONG)
    order.submit("many", **many)
    order.submit("late", max_new_tokens=5, ignore_end=True)
    *_, found, _ = order.run()
    assert texts(found) == texts(shared_engine.generate("x", **many))
    assert set(order.ended[:2]) == {"many", "late"}
    assert len({one.tokens for one in (found, *found.alternatives)}) > 1


def test_samples_of_one_token(gated: Engine) -> None:
    """None of them has a second step; the slots go to the next ones all the same."""
    order = Order(gated)
    for _ in range(3):
        order.submit("running", **LONG)
    order.submit("many", n=4, temperature=1.0, seed=3, max_new_tokens=1)
    *running, found = order.run()
    assert [len(tokens) for tokens in texts(found)] == [1] * 4
    assert {len(one.tokens) for one in running} == {80}


def test_a_beam_search_is_passed_by_but_not_for_ever(gated: Engine) -> None:
    """It needs all four slots at once. Short requests may start before it, a bounded number."""
    order = Order(gated)
    order.submit("running", **LONG)
    order.submit("wide", beams=4, max_new_tokens=3)
    for _ in range(40):
        order.submit("short", max_new_tokens=2, ignore_end=True)
    order.run()
    assert order.ended[:PATIENCE] == ["short"] * PATIENCE
    assert order.ended[PATIENCE : PATIENCE + 2] == ["running", "wide"]
