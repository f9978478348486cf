"""Requests that come, go, fail and are cancelled while others run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bundles import TASKS, make_prefix
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprefix.runtime import Completion, Engine, Piece, Prefix, Request
from edgeprefix.runtime.engine.requests import StreamedRequest
from edgeprefix.runtime.errors import (
    EngineClosedError,
    NumericalError,
    QueueFullError,
    RequestCancelled,
    RequestError,
    RequestTimeout,
)
from edgeprefix.runtime.scheduling.waiting import WaitingLine
from edgeprefix.runtime.work.resident import ResidentPrefix
from edgeprefix.runtime.work.ticket import Ticket

LONG = {"max_new_tokens": 80, "ignore_end": True}


def test_many_threads_get_their_own_answers(shared_engine: Engine) -> None:
    jobs = [(f"text number {number}", name) for number in range(6) for name in (*TASKS, None)]
    alone = [
        shared_engine.generate(text, task=name, max_new_tokens=8, ignore_end=True).tokens
        for text, name in jobs
    ]
    together: list[tuple[int, ...] | None] = [None] * len(jobs)

    def run(index: int) -> None:
        text, name = jobs[index]
        together[index] = shared_engine.generate(
            text, task=name, max_new_tokens=8, ignore_end=True
        ).tokens

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_cancel_while_it_runs_and_while_it_waits(engine: Engine) -> None:
    tickets = [engine.submit(Request("x", **LONG)) for _ in range(8)]  # four slots
    tickets[1].cancel()
    tickets[7].cancel()
    for ticket in (tickets[1], tickets[7]):
        with pytest.raises(RequestCancelled, match="the request was cancelled"):
            ticket.result(timeout_s=30)
    results = [
        ticket.result(timeout_s=30).tokens
        for index, ticket in enumerate(tickets)
        if index not in (1, 7)
    ]
    assert len(set(results)) == 1
    assert engine.occupancy == (0, 0)


def test_a_deadline_ends_running_and_waiting_requests(engine: Engine) -> None:
    blockers = [engine.submit(Request("x", **LONG)) for _ in range(4)]
    with pytest.raises(
        RequestTimeout, match=r"did not finish within 0\.001 s; give it more time or fewer tokens"
    ):
        engine.generate("x", timeout_s=0.001, **LONG)
    assert {ticket.result(timeout_s=30).finish_reason for ticket in blockers} == {"length"}


def test_a_full_queue_says_so_and_a_batch_waits(llama_bundle: Path) -> None:
    with Engine.load(llama_bundle, max_batch=1, max_length=96, threads=1, max_waiting=3) as engine:
        tickets: list[Ticket[Completion]] = []

        def flood() -> None:
            tickets.extend(engine.submit(Request("x", **LONG)) for _ in range(12))

        with pytest.raises(QueueFullError, match="3 requests wait already; try again later"):
            flood()
        assert len({ticket.result(timeout_s=30).tokens for ticket in tickets}) == 1
        assert (
            len(engine.generate_many([Request("x", max_new_tokens=2, ignore_end=True)] * 20)) == 20
        )


def test_close_cancels_or_finishes(llama_bundle: Path) -> None:
    for finish in (False, True):
        engine = Engine.load(llama_bundle, max_batch=2, max_length=96, threads=1)
        tickets = [engine.submit(Request("x", **LONG)) for _ in range(5)]
        engine.close(finish=finish)
        assert all(ticket.done for ticket in tickets)
        if finish:
            assert {len(ticket.result().tokens) for ticket in tickets} == {80}
        else:
            with pytest.raises(EngineClosedError, match="closed before this request finished"):
                tickets[-1].result()


def test_an_engine_that_is_let_go_of_ends_its_thread(llama_bundle: Path) -> None:
    engine = Engine.load(llama_bundle, max_batch=1, max_length=32, threads=1)
    thread = engine._scheduler._thread
    del engine
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_nan_fails_one_request_only(engine: Engine) -> None:
    poison = make_prefix(engine.manifest, "poison", 2)
    engine.load_prefix(poison)
    # What a bad graph would do; files are checked
    engine._store.use("poison").prefix.packed[0][:] = np.nan
    good = engine.submit(Request("fine", task="news", **LONG))
    with pytest.raises(NumericalError, match="the base gave nan as a logit"):
        engine.generate("x", task="poison")
    with pytest.raises(NumericalError):
        engine.score("x", ["a", "b"], task="poison")
    with pytest.raises(NumericalError):
        engine.generate("x", task="poison", beams=2)
    assert good.result(timeout_s=30).tokens == engine.generate("fine", task="news", **LONG).tokens


def test_a_broken_callback_fails_its_own_request_only(engine: Engine) -> None:
    good = engine.submit(Request("fine", task="news", **LONG))

    def broken(_: Piece) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        engine.submit(StreamedRequest(Request("x", **LONG), broken)).result(timeout_s=30)
    assert len(good.result(timeout_s=30).tokens) == 80


def test_options_that_bar_everything_fail_one_request_only(engine: Engine) -> None:
    with pytest.raises(RequestError, match="every token is barred"):
        engine.generate("x", logit_bias=dict.fromkeys(range(384), -np.inf))
    assert engine.generate("x", max_new_tokens=1, ignore_end=True).tokens


def test_a_long_prompt_does_not_stop_the_others(engine: Engine) -> None:
    """While a prompt of eight chunks is fed, a running text goes on by a token for each chunk."""
    events: list[str] = []
    tickets = []

    def on_piece(_: Piece) -> None:  # on the engine's thread, so that nothing depends on time
        if not events:
            tickets.append(
                engine.submit(
                    StreamedRequest(
                        Request([7] * 64, max_new_tokens=1), lambda _: events.append("long")
                    )
                )
            )
        events.append("short")

    engine.submit(StreamedRequest(Request("x", **LONG), on_piece)).result(timeout_s=60)
    tickets[0].result(timeout_s=60)
    assert 7 <= events.index("long") <= 10


def test_the_line_is_fair_between_tasks() -> None:
    class Waiting:
        def __init__(self, name: str | None) -> None:
            self.lanes = 1
            self.prefix = None if name is None else ResidentPrefix(name=name, length=0, packed=())

    line = WaitingLine()
    for name in ("a", "a", "a", "b", None, "b"):
        line.put(Waiting(name))  # type: ignore[arg-type]
    served = [line.take(4) for _ in range(len(line))]
    assert [None if work.prefix is None else work.prefix.name for work in served if work] == [
        "a",
        "b",
        None,
        "a",
        "b",
        "a",
    ]
    assert line.take(4) is None


def test_asyncio_front(shared_engine: Engine) -> None:
    async def collect(name: str) -> str:
        return "".join(
            [piece.text async for piece in shared_engine.astream("hello", task=name, **LONG)]
        )

    async def together() -> list[str]:
        return await asyncio.gather(*(collect(name) for name in TASKS))

    alone = [shared_engine.generate("hello", task=name, **LONG).text for name in TASKS]
    assert asyncio.run(together()) == alone


def test_asyncio_cancellation_and_errors(engine: Engine) -> None:
    async def main() -> None:
        with pytest.raises(RequestTimeout):
            async for _ in engine.astream("hello", timeout_s=0.0, **LONG):
                pass
        task = asyncio.create_task(engine.agenerate(Request("hello", **LONG)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        stream = engine.astream("hello", **LONG)
        assert isinstance(await anext(stream), Piece)
        await stream.aclose()  # type: ignore[attr-defined]
        completion = await engine.agenerate(Request("hello", max_new_tokens=3, ignore_end=True))
        assert len(completion.tokens) == 3

    asyncio.run(main())


# Isolation ----------------------------------------------------------------------------------------

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["generate", "generate", "generate", "sample", "score", "cancel", "replace", "beams"]
        ),
        st.sampled_from([*TASKS, None]),
        st.integers(1, 30),  # prompt length
        st.integers(1, 8),  # new tokens
    ),
    min_size=2,
    max_size=14,
)


Action = tuple[str, str | None, int, int]
"""Kind, task, prompt length, new tokens."""


class Versions:
    """Two prefixes of every task, which take each other's place."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self._prefixes = {
            name: [
                Prefix.load(folder / f"{name}.safetensors"),
                make_prefix(engine.manifest, name, length, seed=100 + length),
            ]
            for name, length in TASKS.items()
        }
        self._now = dict.fromkeys(TASKS, 0)

    def of(self, name: str | None) -> int:
        """Which one serves; the base alone has one version."""
        return 0 if name is None else self._now[name]

    def replace(self, name: str | None, version: int | None = None) -> None:
        """By the other one, or by one of a number."""
        if name is not None:
            self._now[name] = 1 - self._now[name] if version is None else version
            self.engine.load_prefix(self._prefixes[name][self._now[name]])


class Alone:
    """What each request gives when nothing else runs; computed once for each version."""

    def __init__(self, versions: Versions) -> None:
        self.versions = versions
        self._known: dict[tuple[Action, int], object] = {}

    def __call__(self, action: Action, version: int) -> object:
        if (action, version) not in self._known:
            if self.versions.of(action[1]) != version:
                self.versions.replace(action[1], version)
            self._known[action, version] = result_of(submit(self.versions.engine, action))
        return self._known[action, version]


def submit(engine: Engine, action: Action) -> object:
    kind, name, length, new = action
    ids = np.random.default_rng(length).integers(2, 380, length).tolist()
    if kind == "score":
        return engine.score(ids, ["yes", "no"], task=name)
    extra = {"sample": {"temperature": 1.0, "seed": new}, "beams": {"beams": 2}}.get(kind, {})
    return engine.submit(Request(ids, task=name, max_new_tokens=new, ignore_end=True, **extra))  # type: ignore[arg-type]


def result_of(submitted: object) -> object:
    return (
        submitted.result(timeout_s=60).tokens
        if isinstance(submitted, Ticket)
        else [round(x, 4) for x in submitted]
    )  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def alone(shared_engine: Engine, prefix_folder: Path) -> Iterator[Alone]:
    versions = Versions(shared_engine, prefix_folder)
    yield Alone(versions)
    for name in TASKS:
        versions.replace(name, 0)


def test_the_versions_of_a_task_differ(alone: Alone) -> None:
    """Or the replacements below would replace nothing."""
    for name in TASKS:
        ask: Action = ("score", name, 7, 1)
        assert alone(ask, 0) != alone(ask, 1)


def check_isolation(engine: Engine, alone: Alone, actions: list[Action]) -> None:
    """Whatever comes, goes, is cancelled or replaced at the same time: the same tokens as alone,
    with the prefix that the task had when the request came.
    """
    started = []
    for action in actions:
        kind, name, _, _ = action
        if kind == "replace":
            alone.versions.replace(name or "news")
            continue
        submitted = submit(engine, ("generate", *action[1:]) if kind == "cancel" else action)
        if kind == "cancel":
            submitted.cancel()  # type: ignore[union-attr]
        else:
            started.append((action, alone.versions.of(name), submitted))
    for action, version, result in [
        (action, version, result_of(submitted)) for action, version, submitted in started
    ]:
        assert result == alone(action, version)


@given(actions=ACTIONS)
@settings(max_examples=150, deadline=None)
def test_no_request_sees_anything_of_another(
    shared_engine: Engine, alone: Alone, actions: list[Action]
) -> None:
    check_isolation(shared_engine, alone, actions)


@pytest.mark.slow
@given(actions=ACTIONS)
@settings(max_examples=5000, deadline=None)
def test_no_request_sees_anything_of_another_in_thousands_of_interleavings(
    shared_engine: Engine, alone: Alone, actions: list[Action]
) -> None:
    check_isolation(shared_engine, alone, actions)
