"""Budget, eviction, pinning and the folder watcher."""

from __future__ import annotations

import dataclasses
import os
import shutil
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bundles import TASKS, make_prefix

from edgeprefix.runtime import Engine, Prefix
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.prefix_file import sign_prefix
from edgeprefix.runtime.contracts.signature import SigningKey, write_key_pair
from edgeprefix.runtime.decoding.cache import Cache
from edgeprefix.runtime.errors import (
    CapacityError,
    PrefixFileError,
    SignatureError,
    UnknownTaskError,
)
from edgeprefix.runtime.tasks.prefix_store import PrefixStore
from edgeprefix.runtime.tasks.watcher import FolderWatcher

# A position of the tiny llama: 2 layers, keys and values, 2 heads of 16, fp32
BYTES = 2 * 2 * 2 * 16 * 4


@pytest.fixture
def small(llama_bundle: Path) -> Iterator[Engine]:
    """Space for ten positions of prefixes."""
    with Engine.load(
        llama_bundle, max_batch=1, max_length=64, threads=1, prefix_bytes=10 * BYTES
    ) as engine:
        yield engine


def resident(engine: Engine) -> list[str]:
    return [task.name for task in engine.tasks() if task.resident]


def test_least_recently_used_tasks_are_evicted_and_come_back(
    small: Engine, prefix_folder: Path
) -> None:
    for name in ("news", "mail", "code"):  # 5 + 3 + 1 positions
        small.load_prefix(prefix_folder / f"{name}.safetensors")
    before = small.generate("x", task="news", max_new_tokens=5, ignore_end=True).tokens
    # 3 more: mail has to go, then it fits
    small.load_prefix(prefix_folder / "mail.safetensors", name="mail2")
    assert resident(small) == ["code", "mail2", "news"]
    # 9: only code, the smallest of the old ones, could stay
    small.load_prefix(prefix_folder / "poem.safetensors")
    assert "poem" in resident(small)
    assert sum(task.bytes for task in small.tasks() if task.resident) <= 10 * BYTES
    assert [task.name for task in small.tasks()] == [
        "code",
        "mail",
        "mail2",
        "news",
        "poem",
    ]  # all are still known
    assert small.generate("x", task="news", max_new_tokens=5, ignore_end=True).tokens == before
    assert "news" in resident(small)
    assert next(task for task in small.tasks() if task.name == "news").hits == 2


def test_pinned_tasks_and_those_without_a_file_stay(small: Engine, prefix_folder: Path) -> None:
    small.load_prefix(prefix_folder / "news.safetensors", pin=True)
    small.load_prefix((prefix_folder / "mail.safetensors").read_bytes())
    with pytest.raises(
        CapacityError,
        match=r"bytes for prefix 'poem' do not fit the budget of 5120 bytes: .* too many",
    ):
        small.load_prefix(prefix_folder / "poem.safetensors")
    assert resident(small) == ["mail", "news"]
    small.pin("news", pinned=False)
    small.unload("mail")
    assert small.load_prefix(prefix_folder / "poem.safetensors").bytes == 9 * BYTES
    assert resident(small) == ["poem"]


def test_an_evicted_task_whose_file_is_gone(
    small: Engine, prefix_folder: Path, tmp_path: Path
) -> None:
    shutil.copy(prefix_folder / "news.safetensors", tmp_path)
    small.load_prefix(tmp_path / "news.safetensors")
    small.load_prefix(prefix_folder / "poem.safetensors")
    (tmp_path / "news.safetensors").unlink()
    with pytest.raises(PrefixFileError, match=r"news\.safetensors cannot be read: No such file"):
        small.generate("x", task="news")
    assert small.generate("x", task="poem", max_new_tokens=1, ignore_end=True).tokens


def test_an_evicted_task_does_not_come_back_as_another(
    small: Engine, prefix_folder: Path, tmp_path: Path
) -> None:
    """Its file was replaced by another task's; a newer file of the same task is welcome."""
    path = tmp_path / "tasks.safetensors"
    shutil.copy(prefix_folder / "news.safetensors", path)
    small.load_prefix(path)
    small.load_prefix(path, name="alias")  # 5 + 5 positions
    version = small.task("news").version
    small.load_prefix(prefix_folder / "poem.safetensors")
    shutil.copy(prefix_folder / "mail.safetensors", path)
    for name in ("news", "alias"):
        match = f"task '{name}' was evicted, and its file .* now holds task 'mail', not 'news'"
        with pytest.raises(PrefixFileError, match=match):
            small.generate("x", task=name)
    assert resident(small) == ["poem"]
    make_prefix(small.manifest, "news", 4).save(path)
    for name in ("news", "alias"):
        assert small.generate("x", task=name, max_new_tokens=1, ignore_end=True).tokens
    assert (small.task("news").length, small.task("news").version) == (4, version)


def test_a_prefix_larger_than_the_budget_changes_nothing(
    small: Engine, prefix_folder: Path
) -> None:
    small.load_prefix(prefix_folder / "news.safetensors")
    with pytest.raises(CapacityError, match="do not fit the budget"):
        small.load_prefix(make_prefix(small.manifest, "big", 11))
    assert resident(small) == ["news"]


def test_a_window_narrower_than_the_cache_is_warned_of(
    llama_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = Manifest.load(llama_bundle)
    layers = (manifest.layers[0], dataclasses.replace(manifest.layers[1], window=12))
    cache = Cache(layers, batch=1, capacity=64, dtype=np.dtype(np.float32))
    store = PrefixStore(dataclasses.replace(manifest, layers=layers), cache)
    store.load(make_prefix(manifest, "news", 5))
    assert (
        "sliding window of 12 positions lose sight of its prefix of 5 from the text's token 7 on"
        in caplog.text
    )


def test_the_watcher_follows_a_folder(engine: Engine, llama_bundle: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(llama_bundle)
    folder = tmp_path / "watched"
    folder.mkdir()
    make_prefix(manifest, "one", 3).save(folder / "one.safetensors")
    # The test looks itself, so that nothing depends on time
    watcher = engine.watch(folder, interval_s=3600)
    assert engine.task("one").length == 3

    make_prefix(manifest, "one", 4).save(folder / "one.safetensors")
    make_prefix(manifest, "two", 2).save(folder / "two.safetensors")
    (folder / "notes.txt").write_text("no prefix")
    watcher.scan()
    assert (engine.task("one").length, engine.task("two").length) == (4, 2)

    (folder / "two.safetensors").write_bytes(b"half a file")
    watcher.scan()
    assert engine.task("two").length == 2  # the old one still serves
    assert "two.safetensors" in str(*watcher.errors.values())

    make_prefix(manifest, "two", 5).save(folder / "two.safetensors")
    (folder / "one.safetensors").unlink()
    watcher.scan()
    assert watcher.errors == {}
    assert engine.task("two").length == 5
    with pytest.raises(UnknownTaskError, match="task 'one' is unknown"):
        engine.generate("x", task="one")

    shutil.move(folder, tmp_path / "away")  # the disk is gone
    watcher.scan()
    assert "cannot be read" in str(watcher.errors[str(folder)])
    assert engine.generate("x", task="two", max_new_tokens=1, ignore_end=True).tokens
    shutil.move(tmp_path / "away", folder)
    watcher.scan()
    assert watcher.errors == {}
    assert engine.task("two").length == 5


def test_the_watcher_looks_by_itself(engine: Engine, llama_bundle: Path, tmp_path: Path) -> None:
    watcher = engine.watch(tmp_path, interval_s=0.005)
    make_prefix(Manifest.load(llama_bundle), "late", 2).save(tmp_path / "late.safetensors")
    for _ in range(2000):
        if "late" in resident(engine):
            break
        watcher._stopped.wait(0.005)
    assert "late" in resident(engine)
    engine.close()
    assert not watcher._thread.is_alive()


def test_a_folder_that_does_not_exist(engine: Engine, tmp_path: Path) -> None:
    for attempt in (engine.watch, engine.load_prefixes):
        with pytest.raises(PrefixFileError, match="is no folder"):
            attempt(tmp_path / "none")
    assert len(engine.tasks()) == len(TASKS)


class Watched:
    """A folder that an engine follows; the test looks itself, so that nothing depends on time."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        self.watcher = engine.watch(folder, interval_s=3600)
        self._time = 1_000_000_000

    def put(self, file: str, task: str, length: int) -> Path:
        """A prefix file, newer than all before it."""
        path = self.folder / f"{file}.safetensors"
        make_prefix(self.engine.manifest, task, length).save(path)
        self._time += 1
        os.utime(path, (self._time, self._time))
        return path

    def scan(self) -> dict[str, int]:
        """Lengths of the tasks that are there after a look."""
        self.watcher.scan()
        return {task.name: task.length for task in self.engine.tasks() if task.name not in TASKS}

    def errors(self) -> str:
        return " | ".join(map(str, self.watcher.errors.values()))


@pytest.fixture
def watched(engine: Engine, tmp_path: Path) -> Watched:
    folder = tmp_path / "watched"
    folder.mkdir()
    return Watched(engine, folder)


def test_a_dangling_link_is_named_and_stops_nothing(watched: Watched, tmp_path: Path) -> None:
    (watched.folder / "a.safetensors").symlink_to(tmp_path / "later")
    watched.put("b", "b", 2)
    assert watched.scan() == {"b": 2}
    assert "a.safetensors cannot be read: No such file" in watched.errors()
    watched.put("b", "a", 3).rename(tmp_path / "later")
    assert watched.scan() == {"a": 3}
    assert watched.errors() == ""
    (tmp_path / "later").unlink()  # what it brought stays until the link goes
    assert watched.scan() == {"a": 3}
    assert "a.safetensors cannot be read" in watched.errors()
    (watched.folder / "a.safetensors").unlink()
    assert watched.scan() == {}


@pytest.mark.timeout(30)
def test_a_fifo_hangs_nobody(watched: Watched, tmp_path: Path) -> None:
    fifo = watched.folder / "f.safetensors"
    os.mkfifo(fifo)
    watched.put("b", "b", 2)
    assert watched.scan() == {"b": 2}
    assert "f.safetensors is no regular file" in watched.errors()
    with pytest.raises(PrefixFileError, match="is no regular file"):
        watched.engine.load_prefix(fifo)
    watched.engine.close()


def test_a_giant_foreign_file_is_not_read(watched: Watched, tmp_path: Path) -> None:
    """Sparse files of a terabyte: reading one whole would end the process."""
    foreign = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    ours = watched.put("b", "b", 2).read_bytes()
    giants = {"foreign": struct.pack("<Q", len(foreign)) + foreign, "ours": ours, "empty": b""}
    for name, content in giants.items():
        with open(watched.folder / f"{name}.safetensors", "wb") as file:
            file.write(content)
            file.truncate(1 << 40)
    assert watched.scan() == {"b": 2}
    for words in ("not a prefix file", "more than the", "header is not valid JSON"):
        assert words in watched.errors()


def test_a_file_that_changes_its_task_takes_the_old_one_away(watched: Watched) -> None:
    watched.put("a", "one", 2)
    assert watched.scan() == {"one": 2}
    watched.put("a", "two", 3)
    assert watched.scan() == {"two": 3}
    watched.put("b", "two", 4)
    watched.put("a", "one", 5)
    assert watched.scan() == {"one": 5, "two": 4}


def test_of_several_files_of_a_task_the_newest_serves(watched: Watched) -> None:
    for length, file in enumerate("abc", start=1):
        watched.put(file, "t", length)
    assert watched.scan() == {"t": 3}
    watched.put("a", "t", 4)
    assert watched.scan() == {"t": 4}
    (watched.folder / "b.safetensors").unlink()  # it did not serve
    assert watched.scan() == {"t": 4}
    (watched.folder / "c.safetensors").write_bytes(b"damaged")
    watched.put("b", "t", 6)
    (watched.folder / "a.safetensors").rename(watched.folder / "z.safetensors")
    assert watched.scan() == {"t": 6}
    (watched.folder / "b.safetensors").unlink()
    assert watched.scan() == {"t": 4}  # c is damaged
    (watched.folder / "z.safetensors").unlink()
    assert watched.scan() == {}


def test_a_renamed_file_leaves_no_gap(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    path = watched.put("a", "t", 2)
    watched.scan()
    unloaded: list[str] = []
    monkeypatch.setattr(PrefixStore, "unload", lambda store, name: unloaded.append(name))
    path.rename(watched.folder / "b.safetensors")
    assert watched.scan() == {"t": 2}
    assert unloaded == []


def test_what_ends_a_load_ends_no_thread_and_is_tried_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watched.put("a", "a", 2)
    load = PrefixStore.load
    for problem, words in ((MemoryError(), "the memory does not suffice"), (KeyError("k"), "'k'")):

        def fail(*_: object, problem: Exception = problem, **__: object) -> None:
            raise problem

        monkeypatch.setattr(PrefixStore, "load", fail)
        assert watched.scan() == {}
        assert words in watched.errors()
        assert words in caplog.text
    monkeypatch.setattr(PrefixStore, "load", load)
    assert watched.scan() == {"a": 2}
    assert watched.errors() == ""


def test_the_thread_outlives_what_a_listing_raises(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = engine.watch(tmp_path, interval_s=0.002)
    failed = threading.Event()

    def fail(folder: Path) -> list[Path]:
        failed.set()
        raise MemoryError

    monkeypatch.setattr(f"{FolderWatcher.__module__}.prefix_files", fail)
    assert failed.wait(10)
    monkeypatch.undo()
    make_prefix(engine.manifest, "late", 2).save(tmp_path / "late.safetensors")
    for _ in range(2000):
        if "late" in resident(engine):
            break
        watcher._stopped.wait(0.005)
    assert "late" in resident(engine)


def test_a_task_that_did_not_fit_is_tried_again_when_there_is_room(
    small: Engine, tmp_path: Path
) -> None:
    small.load_prefix(make_prefix(small.manifest, "mine", 6))  # without a file: never evicted
    watched = Watched(small, tmp_path)
    watched.put("big", "big", 7)
    assert watched.scan() == {"mine": 6}
    assert "do not fit the budget" in watched.errors()
    small.unload("mine")
    assert watched.scan() == {"big": 7}
    assert watched.errors() == ""


def test_a_task_of_the_application_is_its_own(watched: Watched) -> None:
    path = watched.put("a", "t", 2)
    assert watched.scan() == {"t": 2}
    watched.engine.load_prefix(make_prefix(watched.engine.manifest, "t", 7))
    path.unlink()
    assert watched.scan() == {"t": 7}
    watched.engine.unload("t")
    assert watched.scan() == {}


def test_an_evicted_task_is_still_the_watchers(small: Engine, tmp_path: Path) -> None:
    watched = Watched(small, tmp_path)
    path = watched.put("a", "a", 6)
    watched.put("b", "b", 7)
    assert set(watched.scan()) == {"a", "b"}
    small.generate("x", task="a", max_new_tokens=1)  # read again: still the same load
    path.unlink()
    assert set(watched.scan()) == {"b"}


def test_hidden_files_of_other_systems_are_left_alone(watched: Watched, llama_bundle: Path) -> None:
    (watched.folder / "._a.safetensors").write_bytes(b"macOS")
    watched.put("a", "a", 2)
    assert watched.scan() == {"a": 2}
    assert watched.errors() == ""
    assert len(watched.engine.load_prefixes(watched.folder)) == 1


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with me.key, me.pub."""
    write_key_pair(tmp_path / "keys" / "me")
    return tmp_path / "keys"


def signed(prefix: Prefix, keys: Path) -> bytes:
    return sign_prefix(prefix.to_bytes(), SigningKey.load(keys / "me.key"))


def test_an_engine_that_insists_on_signatures(
    llama_bundle: Path, keys: Path, tmp_path: Path
) -> None:
    folder, options = tmp_path / "folder", {"max_batch": 1, "max_length": 64, "threads": 1}
    folder.mkdir()
    own = make_prefix(Manifest.load(llama_bundle), "own", 4)
    (folder / "own.safetensors").write_bytes(signed(own, keys))
    with Engine.load(
        llama_bundle, prefixes=folder, trusted_keys=keys, prefix_bytes=10 * BYTES, **options
    ) as engine:
        plain = make_prefix(engine.manifest, "plain", 3).to_bytes()
        (tmp_path / "plain.safetensors").write_bytes(plain)
        for source in (plain, tmp_path / "plain.safetensors"):
            with pytest.raises(SignatureError, match="is not signed"):
                engine.load_prefix(source)
        engine.load_prefix(make_prefix(engine.manifest, "compiled", 7))  # evicts
        own.save(folder / "own.safetensors")  # somebody takes the signature off
        engine.unload("compiled")
        with pytest.raises(SignatureError, match="is not signed"):
            engine.generate("x", task="own")
        (folder / "own.safetensors").write_bytes(signed(own, keys))
        watcher = engine.watch(folder, interval_s=3600)
        (folder / "plain.safetensors").write_bytes(plain)
        watcher.scan()
        assert [task.name for task in engine.tasks()] == ["own"]
        assert "is not signed" in str(*watcher.errors.values())
    (folder / "plain.safetensors").write_bytes(plain)
    with pytest.raises(SignatureError, match=r"plain\.safetensors: is not signed"):
        Engine.load(llama_bundle, prefixes=folder, trusted_keys=[keys / "me.pub"], **options)


def test_a_watcher_that_insists_on_signatures(engine: Engine, keys: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    watcher = engine.watch(folder, interval_s=3600, trusted_keys=keys / "me.pub")
    prefix = make_prefix(engine.manifest, "own", 4)
    prefix.save(folder / "own.safetensors")
    watcher.scan()
    assert "own" not in resident(engine)
    assert "is not signed" in str(*watcher.errors.values())
    (folder / "own.safetensors").write_bytes(signed(prefix, keys))
    watcher.scan()
    assert "own" in resident(engine)
    with pytest.raises(SignatureError, match="cannot be read"):
        engine.watch(folder, trusted_keys=tmp_path / "none.pub")
