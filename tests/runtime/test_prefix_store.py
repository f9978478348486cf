"""Budget, eviction, pinning and the folder watcher."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bundles import TASKS, make_prefix

from edgeprefix.runtime import Engine
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.decoding.cache import Cache
from edgeprefix.runtime.errors import CapacityError, PrefixFileError, UnknownTaskError
from edgeprefix.runtime.tasks.prefix_store import PrefixStore

# A position of the tiny llama: 2 layers, keys and values, 2 heads of 16, fp32
BYTES = 2 * 2 * 2 * 16 * 4


@pytest.fixture
def small(llama_bundle: Path) -> Iterator[Engine]:
    """Room for ten positions of prefixes."""
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
