"""Every verb as a call, a ticket and a coroutine; batches with bad rows; what a callback, a fork or
a second engine may not do.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import make_prefix
from interleavings import scripted_engine
from test_lifetimes import LONG, GatedDecoder, gate

from edgeprefix.runtime import (
    ChatRequest,
    CompileRequest,
    Completion,
    Engine,
    LogprobsRequest,
    NextLogprobsRequest,
    Prefix,
    Request,
    ScoreRequest,
    TaskPack,
)
from edgeprefix.runtime.engine import engine as engine_module
from edgeprefix.runtime.errors import (
    EngineClosedError,
    PromptTooLongError,
    QueueFullError,
    RequestCancelled,
    RequestError,
    RequestInterrupted,
    RequestTimeout,
)
from edgeprefix.runtime.work.ticket import Ticket

TALK = [{"role": "user", "content": "Where is it?"}]
SHORT: dict[str, Any] = {"max_new_tokens": 4, "ignore_end": True}


@pytest.fixture
def gated(llama_bundle: Path, prefix_folder: Path) -> Iterator[Engine]:
    """Decodes only as many steps as a test lets through."""
    with scripted_engine(llama_bundle, decoder=GatedDecoder) as engine:
        engine.load_prefixes(prefix_folder)
        yield engine
        gate(engine).open()


def fill_all_slots(engine: Engine) -> list[Ticket[Completion]]:
    """Requests in all slots, whose steps wait at the gate."""
    blockers = [engine.submit(Request("x", **LONG)) for _ in range(4)]
    while engine.occupancy != (4, 0):
        gate(engine).open(1)
        time.sleep(0.001)
    return blockers


# One shape ----------------------------------------------------------------------------------------


def facts(result: Any) -> Any:
    """What two results of one request must share."""
    if isinstance(result, Completion):
        return result.text, result.tokens, result.task
    if isinstance(result, Prefix):
        return result.name, [layer.key.tobytes() for layer in result.layers]
    return result.tolist() if isinstance(result, np.ndarray) else result


VERBS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "generate": (
        lambda e, **k: e.generate("x", task="news", **SHORT, **k),
        lambda **k: Request("x", task="news", **SHORT, **k),
        lambda e, **k: e.agenerate("x", task="news", **SHORT, **k),
    ),
    "chat": (
        lambda e, **k: e.chat(TALK, **SHORT, **k),
        lambda **k: ChatRequest(TALK, **SHORT, **k),
        lambda e, **k: e.achat(TALK, **SHORT, **k),
    ),
    "score": (
        lambda e, **k: e.score("x", ["yes", "no"], task="news", calibrate=True, **k),
        lambda **k: ScoreRequest("x", ["yes", "no"], task="news", calibrate=True, **k),
        lambda e, **k: e.ascore("x", ["yes", "no"], task="news", calibrate=True, **k),
    ),
    "logprobs": (
        lambda e, **k: e.logprobs("some text", task="news", **k),
        lambda **k: LogprobsRequest("some text", task="news", **k),
        lambda e, **k: e.alogprobs("some text", task="news", **k),
    ),
    "next_logprobs": (
        lambda e, **k: e.next_logprobs("some text", task="news", **k),
        lambda **k: NextLogprobsRequest("some text", task="news", **k),
        lambda e, **k: e.anext_logprobs("some text", task="news", **k),
    ),
    "compile": (
        lambda e, **k: e.compile("some text", name="t", task="news", **k),
        lambda **k: CompileRequest("some text", name="t", task="news", **k),
        lambda e, **k: e.acompile("some text", name="t", task="news", **k),
    ),
}


@pytest.fixture(scope="module")
def chatting(llama_bundle: Path, prefix_folder: Path) -> Iterator[Engine]:
    with Engine.load(llama_bundle, prefixes=prefix_folder, max_length=64, threads=1) as engine:
        template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<model>"
        object.__setattr__(engine.manifest, "chat_template", template)
        yield engine


@pytest.mark.parametrize("verb", VERBS)
def test_a_call_a_ticket_and_a_coroutine_give_the_same(chatting: Engine, verb: str) -> None:
    call, request, coroutine = VERBS[verb]
    expected = facts(call(chatting))
    assert facts(chatting.submit(request()).result(timeout_s=30)) == expected
    assert facts(asyncio.run(coroutine(chatting))) == expected


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_time_limit(gated: Engine, verb: str) -> None:
    """The graph stands still; nobody waits for ever."""
    object.__setattr__(gated.manifest, "chat_template", "{{ messages[0].content }}")
    call, request, coroutine = VERBS[verb]
    blockers = fill_all_slots(gated)
    opener = threading.Timer(0.3, lambda: gate(gated).open(3))
    opener.start()
    with pytest.raises(RequestTimeout, match=r"did not finish within 0\.05 s"):
        call(gated, timeout_s=0.05)
    opener.join()
    late = gated.submit(request(timeout_s=0.0))
    gate(gated).open(3)
    with pytest.raises(RequestTimeout):
        late.result(timeout_s=30)
    opener = threading.Timer(0.1, lambda: gate(gated).open(3))
    opener.start()
    with pytest.raises(RequestTimeout):
        asyncio.run(coroutine(gated, timeout_s=0.01))
    opener.join()
    for blocker in blockers:
        blocker.cancel()


def test_perplexity_for_asyncio(shared_engine: Engine) -> None:
    expected = shared_engine.perplexity("some text", task="news")
    assert asyncio.run(shared_engine.aperplexity("some text", task="news")) == expected


def test_a_request_may_stand_for_the_prompt(chatting: Engine) -> None:
    request = ChatRequest(TALK, **SHORT)
    expected = chatting.generate(request)
    assert expected.tokens == chatting.generate(chatting.chat_prompt(TALK), **SHORT).tokens
    assert "".join(piece.text for piece in chatting.stream(request)) == expected.text
    with pytest.raises(RequestError, match="timeout_s: give it to the ChatRequest itself"):
        chatting.generate(request, timeout_s=5)


def test_asyncio_prepares_on_another_thread(
    chatting: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    task = chatting._preparer.task
    monkeypatch.setattr(
        chatting._preparer,
        "task",
        lambda name: (threads.append(threading.current_thread().name), task(name))[1],
    )

    async def main() -> None:
        for _, _, coroutine in VERBS.values():
            await coroutine(chatting)
        async for _ in chatting.astream("x", **SHORT):
            pass

    asyncio.run(main())
    assert len(threads) == len(VERBS) + 1
    assert threading.current_thread().name not in threads


def test_a_task_cancelled_while_it_is_prepared_leaves_no_request(
    gated: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparing, may_go_on = threading.Event(), threading.Event()
    ids = gated._preparer.prompt_ids

    def slow(*given: Any, **named: Any) -> Any:
        preparing.set()
        assert may_go_on.wait(30)
        return ids(*given, **named)

    monkeypatch.setattr(gated._preparer, "prompt_ids", slow)

    async def main() -> None:
        task = asyncio.create_task(gated.agenerate("x", **LONG))
        while not preparing.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        may_go_on.set()

    asyncio.run(main())
    gate(gated).open(3)
    idle(gated)


def idle(engine: Engine) -> None:
    deadline = time.monotonic() + 30
    while engine.occupancy != (0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.001)


# What there is when it ends early -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "texts"),
    [({}, 1), ({"stop": "\0"}, 1), ({"n": 2, "temperature": 1.0, "seed": 1}, 2), ({"beams": 2}, 1)],
)
def test_an_error_holds_the_text_so_far(
    gated: Engine, settings: dict[str, Any], texts: int
) -> None:
    whole = gated.submit(Request("x", task="news", **LONG, **settings))
    cut = gated.submit(Request("x", task="news", **LONG, **settings))
    gate(gated).open(6)
    while gate(gated).runs < 8:
        time.sleep(0.001)
    cut.cancel()
    gate(gated).open()
    with pytest.raises(RequestCancelled) as caught:
        cut.result(timeout_s=30)
    partial = caught.value.partial
    complete = whole.result(timeout_s=30)
    assert (partial.task, partial.finish_reason) == ("news", "cancelled")
    assert 1 <= len(partial.tokens) < 80
    assert len(partial.alternatives) == texts - 1
    if "beams" not in settings:  # the best beam so far may lose later
        assert complete.tokens[: len(partial.tokens)] == partial.tokens
        assert complete.text.startswith(partial.text.rstrip("\ufffd"))


def test_a_timeout_holds_the_text_so_far(gated: Engine) -> None:
    opener = threading.Timer(0.3, lambda: gate(gated).open())
    gate(gated).open(3)
    opener.start()
    with pytest.raises(RequestTimeout) as caught:
        gated.generate("x", timeout_s=0.2, **LONG)
    assert caught.value.partial.finish_reason == "timeout"
    assert len(caught.value.partial.tokens) >= 4


def test_nothing_yet_is_none(gated: Engine) -> None:
    tickets = fill_all_slots(gated)
    waiting = gated.submit(ScoreRequest("x", ["a"]))
    waiting.cancel()
    gate(gated).open(1)
    with pytest.raises(RequestInterrupted) as caught:
        waiting.result(timeout_s=30)
    assert caught.value.partial is None
    for ticket in tickets:
        ticket.cancel()


# Batches ------------------------------------------------------------------------------------------

ROWS = [Request("a", **SHORT), Request("b", **SHORT), Request([]), Request("d", **SHORT)]


def test_a_bad_row_is_named_and_the_finished_ones_are_kept(shared_engine: Engine) -> None:
    alone = [shared_engine.generate(row).tokens for row in ROWS if row.prompt]
    outcomes = shared_engine.generate_many(ROWS, return_exceptions=True)
    assert [one.tokens for one in outcomes if isinstance(one, Completion)] == alone
    bad = outcomes[2]
    assert isinstance(bad, RequestError)
    assert (bad.row, str(bad)) == (
        2,
        "row 2: the prompt is empty; give at least one token of text",
    )
    with pytest.raises(RequestError, match="row 2: the prompt is empty") as caught:
        shared_engine.generate_many(ROWS)
    assert [one.tokens for one in caught.value.finished] == alone[:2]
    found: list[int] = []
    with pytest.raises(RequestError, match="row 2: "):
        found.extend(row for row, _ in shared_engine.generate_each(ROWS))
    assert found == [0, 1]
    each = list(shared_engine.generate_each(ROWS, return_exceptions=True))
    assert [row for row, _ in each] == [0, 1, 2, 3]


def test_an_error_of_several_rows_names_each(engine: Engine) -> None:
    """A row that fails while it runs; both rows may have been given one error object."""
    engine.load_prefix(make_prefix(engine.manifest, "poison", 2))
    engine._store.use("poison").prefix.packed[0][:] = np.nan
    rows = [Request("x", task="poison", **SHORT), Request("x", **SHORT)] * 2
    outcomes = engine.generate_many(rows, return_exceptions=True)
    assert [str(one).split(":")[0] for one in outcomes[::2]] == ["row 0", "row 2"]
    assert all(isinstance(one, Completion) for one in outcomes[1::2])


def test_scores_of_many_prompts(shared_engine: Engine) -> None:
    prompts: list[Any] = ["a", [5] * 999, "c"]
    first, bad, last = shared_engine.score_many(prompts, ["yes", "no"], return_exceptions=True)
    assert isinstance(bad, PromptTooLongError)
    assert bad.row == 1
    assert [first, last] == shared_engine.score_many(["a", "c"], ["yes", "no"])
    with pytest.raises(PromptTooLongError, match=r"row 1: .* has \d+ tokens, room is for"):
        shared_engine.score_many(prompts, ["yes", "no"])


def test_batches_for_asyncio(engine: Engine) -> None:
    rows = [Request(f"number {row}", task="news", **SHORT) for row in range(20)]
    bad = [*rows[:2], Request([]), *rows[2:]]

    async def main() -> None:
        found = await engine.agenerate_many(iter(rows))
        assert [one.tokens for one in found] == [one.tokens for one in engine.generate_many(rows)]
        first, _, error, *others = await engine.agenerate_many(bad, return_exceptions=True)
        assert isinstance(error, RequestError)
        assert (error.row, len(others)) == (2, 18)
        with pytest.raises(RequestError, match="row 2: ") as caught:
            await engine.asubmit_many(bad)
        assert [one.text for one in caught.value.finished] == [first.text, found[1].text]

    asyncio.run(main())
    assert engine.occupancy == (0, 0)


def test_a_batch_for_asyncio_that_is_cancelled_cancels_its_requests(gated: Engine) -> None:
    async def main() -> None:
        task = asyncio.create_task(gated.agenerate_many([Request("x", **LONG)] * 50))
        while gated.occupancy.running < gated.max_batch:
            await asyncio.sleep(0.001)
        task.cancel()
        gate(gated).open(2)  # far fewer steps than one of them takes
        await asyncio.wait({task}, timeout=20)  # the gate lets a step through every 30 s
        assert task.cancelled()
        while gated.occupancy != (0, 0):
            await asyncio.sleep(0.001)

    asyncio.run(main())


def test_waiting_for_room_in_the_line_has_a_limit(llama_bundle: Path) -> None:
    with Engine.load(llama_bundle, max_batch=1, max_length=256, threads=1, max_waiting=1) as engine:
        step = engine._scheduler._decoder.step
        engine._scheduler._decoder.step = lambda *given: (time.sleep(0.05), step(*given))[1]  # type: ignore[method-assign]
        running = engine.submit(Request("x", max_new_tokens=200, ignore_end=True))
        while engine.occupancy != (1, 0):
            time.sleep(0.001)
        waiting = engine.submit(Request("x", **SHORT))
        with pytest.raises(QueueFullError):
            engine.submit(Request("x", **SHORT))
        with pytest.raises(RequestTimeout):
            engine.submit(Request("x", timeout_s=0.2, **SHORT), wait=True)
        assert not running.done, "it waited for room instead of for its time"
        running.cancel()
        assert waiting.result(timeout_s=30).tokens


def test_calibration_keeps_the_time_limit(gated: Engine) -> None:
    """Its content-free prompt is computed within the request's time, as part of it."""
    blockers = fill_all_slots(gated)
    opener = threading.Timer(0.3, lambda: gate(gated).open(2))
    opener.start()
    with pytest.raises(RequestTimeout):
        gated.score("x", ["yes", "no"], calibrate=True, timeout_s=0.05)
    opener.join()
    assert not any(blocker.done for blocker in blockers), "it waited for a slot"
    for blocker in blockers:
        blocker.cancel()


# Callers' code ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, ZeroDivisionError])
def test_a_progress_that_fails_ends_its_own_request(
    engine: Engine, kind: type[BaseException]
) -> None:
    def broken(done: int) -> None:
        raise kind("no more")

    with pytest.raises(kind, match="no more"):
        engine.compile("some text", name="t", progress=broken)
    assert engine.generate("x", **SHORT).tokens


@pytest.mark.parametrize("kind", [SystemExit, ZeroDivisionError])
def test_whatever_is_raised_on_the_engines_thread_fails_one_request(
    engine: Engine, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise kind

    ticket = engine.submit(Request("x", **LONG))
    monkeypatch.setattr(engine._scheduler._decoder, "step", broken)
    with pytest.raises(kind):
        ticket.result(timeout_s=30)
    monkeypatch.undo()
    assert engine.generate("x", **SHORT).tokens


def test_a_callback_may_use_the_engine_and_holds_nobody_up(engine: Engine) -> None:
    done, go_on = threading.Event(), threading.Event()
    found: list[Any] = []

    def again(future: Future[Completion]) -> None:
        found.append(engine.generate("x", **SHORT).tokens)
        done.set()

    def blocks(future: Future[Completion]) -> None:
        go_on.wait(30)

    ticket = engine.submit(Request("x", **LONG))
    ticket.future.add_done_callback(again)
    assert done.wait(30)
    running = engine.submit(Request("x", **LONG))
    running.future.add_done_callback(blocks)
    running.result(timeout_s=30)
    assert engine.generate("x", **SHORT).tokens == found[0]  # while the callback still waits
    assert ticket.future is ticket.future
    go_on.set()


def test_a_progress_that_blocks_holds_nobody_up(engine: Engine) -> None:
    go_on = threading.Event()
    slow = engine.submit(CompileRequest("text", name="t", progress=lambda done: go_on.wait(30)))
    assert engine.generate("x", **SHORT).tokens
    assert engine.compile("text", name="t").layers
    assert not slow.done
    go_on.set()
    assert slow.result(timeout_s=30).name == "t"


def test_waiting_on_the_engines_own_thread_is_refused(engine: Engine) -> None:
    refused: list[str] = []

    def waits(_: Any) -> None:
        for wait in (
            lambda: engine.generate("x", **SHORT),
            lambda: next(engine.stream("x", **SHORT)),
            lambda: engine.submit(Request("x"), wait=True),
        ):
            try:
                wait()
            except RequestError as error:
                refused.append(str(error))

    ticket = engine.submit(Request("x", **LONG))
    ticket.when_done(waits)
    assert len(ticket.result(timeout_s=30).tokens) == 80
    idle(engine)
    assert [text.split(" cannot")[0] for text in refused] == ["the engine's own thread"] * 3
    assert engine.generate("x", **SHORT).tokens


# Memory, processes, cores -------------------------------------------------------------------------


def test_close_gives_the_memory_back(llama_bundle: Path, prefix_folder: Path) -> None:
    """While the engine, a ticket of it and a watcher are still held."""
    engine = Engine.load(llama_bundle, prefixes=prefix_folder, max_length=64, threads=1)
    watcher = engine.watch(prefix_folder)
    ticket = engine.submit(Request("x", task="news", **SHORT))
    ticket.result(timeout_s=30)
    engine.score("x", ["a", "b"], task="news", calibrate=True)
    graph: Any = engine._scheduler._decoder
    held = [
        weakref.ref(graph.graph.session),
        weakref.ref(graph.cache),
        weakref.ref(engine._store.use("news").prefix),
    ]
    del graph
    engine.close()
    gc.collect()
    assert [one() for one in held] == [None, None, None]
    assert (engine.max_batch, engine.max_length) == (8, 64)
    assert not any(task.resident for task in engine.tasks())
    assert ticket.done
    assert watcher.errors == {}


def in_a_child(act: Callable[[], str]) -> str:
    """What a forked process says."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # only what an engine's user could do; no pytest machinery in here
        signal.alarm(30)
        try:
            told = act()
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        os.write(writer, told.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return told


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_parents_ticket_in_a_forked_child(gated: Engine) -> None:
    finished = gated.submit(Request("x", max_new_tokens=1, ignore_end=True)).result(timeout_s=30)
    running = gated.submit(Request("x", **LONG))
    stream = gated.stream("x", **LONG)
    gate(gated).open(1)
    next(stream)
    waits: list[Callable[[], Any]] = [
        running.result,
        running.wait,
        lambda: running.future,
        lambda: list(stream),
        stream.completion,
        lambda: gated.submit(Request("x")),
    ]
    for wait in waits:
        assert in_a_child(wait).startswith("EngineClosedError: this "), wait
    assert in_a_child(lambda: str((running.cancel(), stream.close()))) == "(None, None)"
    gate(gated).open()
    assert len(running.result(timeout_s=30).tokens) == 80
    assert in_a_child(lambda: str(len(running.result().tokens))) == "80"
    assert finished.tokens


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_child_does_not_wait_for_locks_that_stayed_behind(
    llama_bundle: Path, prefix_folder: Path
) -> None:
    """The child is forked while another thread of the parent holds every lock of the engine."""
    news = prefix_folder / "news.safetensors"
    with Engine.load(llama_bundle, prefixes=news, max_length=64, threads=1) as engine:
        watcher = engine.watch(prefix_folder)
        held, forked = threading.Event(), threading.Event()
        locks = [engine._store._lock, engine._watchers_lock, watcher._scanning]

        def hold() -> None:
            with contextlib.ExitStack() as stack:
                for lock in locks:
                    stack.enter_context(lock)
                held.set()
                forked.wait(60)

        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(60)
        asks: list[Callable[[], Any]] = [
            engine.tasks,
            lambda: engine.task("news"),
            lambda: engine.pin("news"),
            lambda: engine.unload("news"),
            lambda: engine.load_prefix(news),
            lambda: engine.watch(prefix_folder),
            watcher.scan,
            lambda: engine.score("x", ["a"], task="news"),
        ]
        told = [in_a_child(ask) for ask in asks]
        assert in_a_child(lambda: str((watcher.stop(), engine.close()))) == "(None, None)"
        forked.set()
        holder.join()
        assert told == [told[0]] * len(asks)
        assert told[0].startswith("EngineClosedError: this engine was loaded before the process")


def test_engines_of_one_process_share_its_cores(
    llama_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    opened = engine_module.open_decoder

    def noted(*args: Any, threads: int, **more: Any) -> Any:
        given.append(threads)
        return opened(*args, threads=1, **more)

    monkeypatch.setattr(engine_module, "open_decoder", noted)
    monkeypatch.setattr(engine_module, "physical_cores", lambda: 8)
    monkeypatch.setattr(
        engine_module.threading, "enumerate", lambda: [one._scheduler._thread for one in engines]
    )
    engines: list[Engine] = []

    def load(threads: int | None = None) -> Engine:
        engines.append(Engine.load(llama_bundle, max_batch=1, max_length=32, threads=threads))
        return engines[-1]

    for threads in (None, None, None, 5):
        load(threads)
    for engine in engines[:3]:
        engine.close()
    del engines[:3]
    load()
    assert given == [8, 4, 2, 5, 4]
    for engine in engines:
        engine.close()


# Old names ----------------------------------------------------------------------------------------


def test_prefix_is_the_old_name_of_task(engine: Engine) -> None:
    calls: list[Callable[..., Any]] = [
        lambda **k: engine.generate("x", **SHORT, **k),
        lambda **k: list(engine.stream("x", **SHORT, **k)),
        lambda **k: asyncio.run(anext_of(engine.astream("x", **SHORT, **k))),
        lambda **k: engine.score("x", ["a"], **k),
        lambda **k: list(engine.score_each(["x"], ["a"], **k)),
        lambda **k: engine.logprobs("some text", **k),
        lambda **k: engine.next_logprobs("some text", **k).tolist(),
        lambda **k: engine.perplexity("some text", **k),
        lambda **k: engine.compile("some text", name="t", **k),
        lambda **k: engine.generate(Request("x", **SHORT, **k)),
    ]
    for call in calls:
        with pytest.warns(DeprecationWarning, match="prefix= is deprecated.*write task=") as said:
            old = call(prefix="news")
        assert said[0].filename == __file__
        assert facts(old) == facts(call(task="news")) != facts(call())
        with pytest.raises(RequestError, match="prefix= is the old name of task="):
            call(prefix="news", task="news")


async def anext_of(pieces: Any) -> Any:
    return [piece.text async for piece in pieces]


def test_old_properties(engine: Engine) -> None:
    completion = engine.generate("x", task="news", **SHORT)
    with pytest.warns(DeprecationWarning, match=r"Completion\.prefix .* write Completion\.task"):
        assert completion.prefix == "news"
    with pytest.warns(DeprecationWarning, match=r"write Request\.task"):
        assert Request("x", task="news").prefix == "news"
    with pytest.warns(DeprecationWarning, match=r"write Engine\.occupancy"):
        assert engine.load_now == (0, 0)


def test_nothing_of_ours_uses_an_old_name(engine: Engine) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.load_prefix(engine.compile("text", name="t", pack=TaskPack(labels=("a", "b"))))
        assert engine.score("x", task="t", calibrate=True).best in "ab"


def test_a_closed_engine_is_closed_for_every_verb(llama_bundle: Path) -> None:
    engine = Engine.load(llama_bundle, max_batch=1, max_length=32, threads=1)
    engine.close()
    for call, request, coroutine in VERBS.values():
        with pytest.raises(EngineClosedError, match="the engine is closed; load it again"):
            call(engine)
        with pytest.raises(EngineClosedError):
            engine.submit(request())
        with pytest.raises(EngineClosedError):
            asyncio.run(coroutine(engine))
