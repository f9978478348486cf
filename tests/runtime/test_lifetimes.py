"""Streams that are let go of, tasks that are cancelled, processes that fork, engines that are
closed: nothing hangs or leaks.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from bundles import TASKS, make_prefix
from interleavings import CountingDecoder, scripted_engine

from edgeprefix.runtime import Completion, Engine, Request
from edgeprefix.runtime.decoding.cache import Cache
from edgeprefix.runtime.errors import (
    EngineClosedError,
    PrefixFileError,
    RequestCancelled,
    RequestError,
    RequestTimeout,
    UnknownTaskError,
)
from edgeprefix.runtime.work.ticket import Ticket

LONG: dict[str, Any] = {"max_new_tokens": 80, "ignore_end": True}


class GatedDecoder(CountingDecoder):
    """Decodes only while the gate is open, so that a request runs for as long as a test wants it
    to.
    """

    def __init__(self, graph: Any, cache: Any, **options: Any) -> None:
        super().__init__(graph, cache, **options)
        self.gate = threading.Semaphore(0)

    def step(self, tokens: Sequence[int], lengths: Sequence[int]) -> Any:
        self.gate.acquire(timeout=30)
        return super().step(tokens, lengths)

    def open(self, steps: int = 10_000) -> None:
        self.gate.release(steps)


@pytest.fixture
def gated(llama_bundle: Path) -> Iterator[Engine]:
    with scripted_engine(llama_bundle, decoder=GatedDecoder) as engine:
        yield engine
        gate(engine).open()


def gate(engine: Engine) -> GatedDecoder:
    decoder: Any = engine._scheduler._decoder
    return decoder


def outcome(ticket: Ticket[Completion]) -> BaseException | None:
    return ticket.future.exception(timeout=30)


def test_a_stream_that_is_let_go_of_cancels_its_request(gated: Engine) -> None:
    stream = gated.stream("x", **LONG)
    next(stream)
    ticket = stream._ticket
    del stream
    gate(gated).open(1)
    assert isinstance(outcome(ticket), RequestCancelled)


def test_a_stream_left_by_break_or_close_cancels_its_request(gated: Engine) -> None:
    with gated.stream("x", **LONG) as stream:
        next(stream)
    gate(gated).open(1)
    assert isinstance(outcome(stream._ticket), RequestCancelled)
    assert list(stream) == []
    with pytest.raises(RequestCancelled):
        stream.completion()


def test_a_slow_reader_does_not_hold_up_the_others(gated: Engine) -> None:
    slow = gated.stream("x", **LONG)
    quick = gated.submit(Request("y", **LONG))
    gate(gated).open()
    assert len(quick.result(timeout_s=30).tokens) == 80
    assert len(slow.completion().tokens) == 80  # nobody read a piece yet
    assert len(list(slow)) == 80


def test_cancelling_an_asyncio_task_frees_the_slot(gated: Engine) -> None:
    async def main() -> None:
        waiting = asyncio.create_task(gated.agenerate(Request("x", **LONG)))
        while gated.occupancy[0] == 0:
            await asyncio.sleep(0.001)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate(gated).open(2)
        while gated.occupancy != (0, 0):
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(main(), 30))
    assert gate(gated).runs <= 4  # the prompt and no more than the steps that were let through


def test_an_asyncio_stream_that_is_left_frees_the_slot(gated: Engine) -> None:
    async def main() -> None:
        async for _ in gated.astream("x", **LONG):
            break  # the iterator is closed when it is collected, at the latest with the loop

    asyncio.run(main())
    gc.collect()
    gate(gated).open(2)
    deadline = time.monotonic() + 30
    while gated.occupancy != (0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert gate(gated).runs <= 4


def test_the_futures_own_cancel_leaves_the_request_alone(gated: Engine) -> None:
    ticket = gated.submit(Request("x", **LONG))
    assert not ticket.future.cancel()
    gate(gated).open()
    assert len(ticket.result(timeout_s=30).tokens) == 80


def test_a_deadline_while_waiting_for_a_slot(gated: Engine) -> None:
    running = [gated.submit(Request("x", **LONG)) for _ in range(4)]
    late = gated.submit(Request("x", timeout_s=0.01, **LONG))
    time.sleep(0.02)
    gate(gated).open(1)
    assert isinstance(outcome(late), RequestTimeout)
    gate(gated).open()
    assert all(len(ticket.result(timeout_s=30).tokens) == 80 for ticket in running)


@pytest.mark.parametrize("timeout_s", [-1, float("nan"), "soon", True])
def test_a_timeout_that_is_no_time(shared_engine: Engine, timeout_s: Any) -> None:
    with pytest.raises(RequestError, match="timeout_s=.*: expected seconds, 0 or more, or None"):
        shared_engine.generate("x", timeout_s=timeout_s)
    with pytest.raises(RequestError, match="timeout_s="):
        shared_engine.score("x", ["a"], timeout_s=timeout_s)


def test_ctrl_c_while_waiting_cancels_the_request(llama_bundle: Path) -> None:
    """A real signal in a real process: generate ends with KeyboardInterrupt, and the engine serves
    the next request. Ten steps are all that the decoder makes after it: the request that was
    interrupted would have taken them, and all others.
    """
    program = f"""
import os, signal, threading, time
from edgeprefix.runtime import Engine
# A job in the background starts with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
with Engine.load({str(llama_bundle)!r}, max_batch=1, max_length=256, threads=1) as engine:
    def interrupt():
        while engine.occupancy[0] == 0:
            time.sleep(0.0005)
        os.kill(os.getpid(), signal.SIGINT)
    steps, step = threading.Semaphore(0), engine._scheduler._decoder.step
    engine._scheduler._decoder.step = lambda *a: (steps.acquire(), step(*a))[1]
    threading.Thread(target=interrupt).start()
    try:
        engine.generate("x", max_new_tokens=200, ignore_end=True)
    except KeyboardInterrupt:
        print("interrupted")
    steps.release(10)
    print(len(engine.generate("y", max_new_tokens=2, ignore_end=True).tokens))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "interrupted\n2\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_process_is_told_and_may_exit(shared_engine: Engine) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # only what an engine's user could do; no pytest machinery in here
        signal.alarm(30)
        try:
            shared_engine.generate("x")
            told = "nothing"
        except EngineClosedError as error:
            told = str(error)
        shared_engine.close()
        os.write(writer, told.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert "loaded before the process forked" in pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    assert shared_engine.generate("x", max_new_tokens=1, ignore_end=True).tokens


def test_a_closed_engine_takes_nothing(llama_bundle: Path, prefix_folder: Path) -> None:
    engine = Engine.load(llama_bundle, max_batch=1, max_length=32, threads=1)
    closers = [threading.Thread(target=engine.close) for _ in range(3)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join(timeout=30)
    engine.close()
    news = prefix_folder / "news.safetensors"
    attempts: list[Any] = [
        lambda: engine.generate("x"),
        lambda: engine.stream("x"),
        lambda: engine.submit(Request("x")),
        lambda: engine.generate_many([Request("x")]),
        lambda: engine.score("x", ["a"]),
        lambda: list(engine.score_each(["x"], ["a"])),
        lambda: engine.logprobs("x"),
        lambda: engine.compile("x", name="x"),
        lambda: engine.load_prefix(news),
        lambda: engine.load_prefixes(prefix_folder),
        lambda: engine.watch(prefix_folder),
        lambda: asyncio.run(engine.agenerate(Request("x"))),
    ]
    for attempt in attempts:
        with pytest.raises(EngineClosedError, match="the engine is closed; load it again"):
            attempt()
    assert not any(thread.name == "edgeprefix-watcher" for thread in threading.enumerate())


def load_on_and_on(engine: Engine, folder: Path, failures: list[BaseException]) -> None:
    try:
        while True:
            engine.load_prefix(folder / "news.safetensors")
            engine.watch(folder, interval_s=0.001)
    except BaseException as error:
        failures.append(error)


def test_loading_tasks_while_the_engine_closes(llama_bundle: Path, prefix_folder: Path) -> None:
    for _ in range(10):
        engine = Engine.load(llama_bundle, max_batch=1, max_length=32, threads=1)
        failures: list[BaseException] = []
        loader = threading.Thread(target=load_on_and_on, args=(engine, prefix_folder, failures))
        loader.start()
        time.sleep(0.002)
        engine.close()
        loader.join(timeout=30)
        assert [type(error) for error in failures] == [EngineClosedError]
    assert not any(thread.name == "edgeprefix-watcher" for thread in threading.enumerate())


def test_an_engine_that_is_let_go_of_leaves_nothing(llama_bundle: Path, tmp_path: Path) -> None:
    """Neither its threads, watcher included, nor its memory, though somebody keeps a ticket and a
    result.
    """
    engine = Engine.load(llama_bundle, max_batch=1, max_length=32, threads=1)
    watcher = engine.watch(tmp_path)
    ticket = engine.submit(Request("x", max_new_tokens=2, ignore_end=True))
    assert ticket.result(timeout_s=30).tokens
    memory = weakref.ref(engine._store._cache)
    del engine
    watcher._thread.join(timeout=10)
    assert not watcher._thread.is_alive()
    del watcher
    gc.collect()
    assert memory() is None
    assert ticket.done


class FailsToWrite(Cache):
    """A cache that cannot take one prefix: of one position."""

    def write(self, slot: int, packed: Sequence[Any]) -> None:
        if packed[0].shape[3] == 1:
            raise MemoryError("no memory on the device")
        super().write(slot, packed)


def test_a_request_that_fails_to_start_fails_alone(llama_bundle: Path, prefix_folder: Path) -> None:
    with scripted_engine(llama_bundle, cache=FailsToWrite) as engine:
        engine.load_prefixes(prefix_folder)
        good = engine.submit(Request("x", task="news", **LONG))
        bad = engine.submit(Request("x", task="code", **LONG))
        next_one = engine.submit(Request("x", task="mail", **LONG))
        assert isinstance(outcome(bad), MemoryError)
        assert [len(ticket.result(timeout_s=30).tokens) for ticket in (good, next_one)] == [80, 80]


@pytest.mark.parametrize("name", ["", "\0", "a\0b", "naïve task", "a/b", "../up", "x" * 129])
def test_names_that_no_task_can_have(engine: Engine, prefix_folder: Path, name: str) -> None:
    with pytest.raises(PrefixFileError, match="cannot be used: letters, digits"):
        engine.load_prefix(prefix_folder / "news.safetensors", name=name)
    with pytest.raises(UnknownTaskError, match="is unknown"):
        engine.generate("x", task=name)
    assert len(engine.tasks()) == len(TASKS)


@pytest.mark.parametrize("source", [5, None, ["a"], "a\0b"])
def test_sources_that_no_prefix_can_have(engine: Engine, source: Any) -> None:
    with pytest.raises(
        PrefixFileError, match="a prefix is a file, its bytes or a Prefix, not|embedded null byte"
    ):
        engine.load_prefix(source)


@pytest.mark.parametrize(
    ("prompt", "settings", "message"),
    [
        (b"abc", {}, "a prompt is text, token ids or named fields, not bytes; decode it first"),
        ([1.5], {}, "a prompt is text, token ids or named fields, not list"),
        ("a\ud800b", {}, "the prompt has no valid character at place 1: surrogates not allowed"),
        ("x", {"forced_prefix": "\udfff"}, "forced_prefix has no valid character at place 0"),
        ("x", {"banned_words": ["\udfff"]}, "a banned or forced word has no valid character"),
        ("x", {"task": 5}, "task=5: expected the name of a task, or None"),
        ("x", {"task": ["news"]}, r"task=\['news'\]: expected the name of a task"),
        ("x", {"template": 5}, "template=5: expected a text with marks such as {input}"),
        ("x", {"max_new_tokens": 0}, "max_new_tokens=0: expected a whole number, at least 1"),
        (
            "x",
            {"forced_words": ["river", "lazy dog"], "max_new_tokens": 3},
            r"take \d+ tokens, 3 may come; raise",
        ),
    ],
)
def test_requests_that_are_refused_by_name(
    shared_engine: Engine, prompt: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        shared_engine.generate(prompt, **settings)
    assert shared_engine.generate("NUL \0 is text", max_new_tokens=1, ignore_end=True).tokens


def test_two_files_of_one_task_in_a_folder(
    llama_bundle: Path, engine: Engine, tmp_path: Path
) -> None:
    make_prefix(engine.manifest, "twin", 2).save(tmp_path / "a.safetensors")
    make_prefix(engine.manifest, "twin", 3).save(tmp_path / "b.safetensors")
    with pytest.raises(
        PrefixFileError,
        match=r"a\.safetensors and .*b\.safetensors are both of task 'twin'; keep one",
    ):
        Engine.load(llama_bundle, prefixes=tmp_path, max_length=32)
    watcher = engine.watch(tmp_path, interval_s=3600)
    assert engine.task("twin").length == 3  # a watched folder follows: the file that came last
    (tmp_path / "b.safetensors").unlink()
    watcher.scan()
    assert engine.task("twin").length == 2
    (tmp_path / "a.safetensors").unlink()
    watcher.scan()
    with pytest.raises(UnknownTaskError):
        engine.task("twin")


def test_a_prefix_folder_that_is_missing(llama_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(PrefixFileError, match="none is no folder; give a folder of prefix files"):
        Engine.load(llama_bundle, prefixes=tmp_path / "none", max_length=32)
    assert not any(
        thread.name == "edgeprefix-engine" and not thread.daemon for thread in threading.enumerate()
    )
