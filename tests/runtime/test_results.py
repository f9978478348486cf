"""Jobs over rows: bad rows keep the good ones' results, and a resume goes on with the same job or
not at all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bundles import make_prefix
from command import Edgeprefix

from edgeprefix.cli.results import ResultFile
from edgeprefix.runtime import TaskPack
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.errors import OutputError

FINE = {"input": "hello", "target": "yes"}
LONG = {"input": "word " * 300, "target": "no"}  # more than the cache holds
NULL = {"input": None, "target": "yes", "note": [1, None]}
HALF = {"input": "fine", "target": "no", "odd": "\ud83d", "n": 7}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def task(llama_bundle: Path, tmp_path: Path) -> Path:
    pack = TaskPack(prompt="{input} ->", labels=("yes", "no"))
    path = tmp_path / "intent.safetensors"
    make_prefix(Manifest.load(llama_bundle), "intent", 4, pack=pack).save(path)
    return path


@pytest.fixture
def run(llama_bundle: Path, task: Path) -> tuple[object, ...]:
    """What is typed before --data and --out."""
    sizes = ("--max-length", 128, "--max-batch", 2, "--threads", 1)
    return ("run", llama_bundle, "--prefix", task, "--max-new-tokens", 3, *sizes)


def test_bad_rows_keep_the_good_ones_results(
    edgeprefix: Edgeprefix, run: tuple[object, ...], tmp_path: Path
) -> None:
    rows = write(tmp_path / "rows.jsonl", [FINE, LONG, NULL, HALF])
    out = tmp_path / "out.jsonl"
    done = edgeprefix(*run, "--data", rows, "--out", out)
    found = read(out)
    assert done.returncode == 1
    assert ["output" in row for row in found] == [True, False, False, True]
    assert "tokens, room is for" in found[1]["error"]
    assert found[2] == {**NULL, "error": "field 'input' holds null, expected text"}
    assert {name: found[3][name] for name in HALF} == HALF, "all fields are kept as they were"
    assert f"error: {rows}:2: the prompt has" in done.stderr
    assert f"error: {rows}:3: field 'input' holds null" in done.stderr
    assert "2 of 4 rows failed" in done.stderr
    assert [path.name for path in tmp_path.glob("*partial*")] == []


def test_a_resume_goes_on_behind_a_bad_row(
    edgeprefix: Edgeprefix, run: tuple[object, ...], tmp_path: Path
) -> None:
    rows = write(tmp_path / "rows.jsonl", [FINE, LONG, HALF, FINE])
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    edgeprefix(*run, "--data", rows, "--out", whole)
    lines = whole.read_text().splitlines(keepends=True)
    (tmp_path / "out.jsonl.partial").write_text("".join(lines[:2]) + lines[2][:7])
    again = edgeprefix(*run, "--data", rows, "--out", out, "--resume")
    assert out.read_text() == whole.read_text()
    assert (again.returncode, "1 of 4 rows failed" in again.stderr) == (1, True)
    assert "does not say how it was made" in again.stderr, "a partial file put there by hand"


def test_when_every_row_fails_nothing_is_kept(
    edgeprefix: Edgeprefix, run: tuple[object, ...], tmp_path: Path
) -> None:
    rows = write(tmp_path / "rows.jsonl", [FINE, HALF])
    out = tmp_path / "out.jsonl"
    done = edgeprefix(*run, "--data", rows, "--out", out, "--template", "{other}")
    assert done.returncode == 1
    assert f"error: {rows}:1: field 'other' is missing" in done.stderr
    assert "(so it was with all 2 rows; nothing is kept)" in done.stderr
    assert list(tmp_path.glob("out*")) == []


def interrupted(out: Path, job: dict[str, Any]) -> None:
    """As Ctrl-C leaves it behind the first row."""
    with pytest.raises(KeyboardInterrupt), ResultFile(out, resume=False, job=job) as results:
        results.write({**FINE, "output": "x", "finish_reason": "length"})
        raise KeyboardInterrupt


def test_another_job_does_not_go_on(
    edgeprefix: Edgeprefix, run: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write(tmp_path / "rows.jsonl", [FINE, HALF])
    out = tmp_path / "out.jsonl"
    kept: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "edgeprefix.cli.run.ResultFile",
        lambda path, *, job, **how: (kept.append(job), ResultFile(path, job=job, **how))[1],
    )
    assert edgeprefix(*run, "--data", rows, "--out", out).returncode == 0
    out.unlink()
    interrupted(out, kept[0])
    other = write(tmp_path / "other.jsonl", [HALF, FINE])
    for changes, words in (
        (("--data", other), "different data"),
        (("--data", rows, "--seed", 3), "different settings"),
        (("--data", rows, "--template", "{input}"), "different template"),
    ):
        refused = edgeprefix(*run, *changes, "--out", out, "--resume")
        assert (refused.returncode, words in refused.stderr) == (1, True), refused.stderr
        assert (tmp_path / "out.jsonl.partial").exists()
    done = edgeprefix(*run, "--data", rows, "--out", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert read(out)[0]["output"] == "x"
    # without its job's file the rows themselves are compared
    out.unlink()
    interrupted(out, {})
    (tmp_path / "out.jsonl.job.partial").unlink()
    refused = edgeprefix(*run, "--data", other, "--out", out, "--resume")
    assert "other.jsonl:1 is not the row that the interrupted run had" in refused.stderr


def test_fields_of_the_data_are_not_overwritten(
    edgeprefix: Edgeprefix, run: tuple[object, ...], llama_bundle: Path, tmp_path: Path
) -> None:
    for name in ("output", "finish_reason", "others", "error"):
        rows = write(tmp_path / "rows.jsonl", [FINE, {**FINE, name: "mine"}])
        done = edgeprefix(*run, "--data", rows, "--out", tmp_path / "out.jsonl")
        assert f"rows.jsonl:2: field '{name}' is where the result goes" in done.stderr
        assert done.returncode == 1
    rows = write(tmp_path / "rows.jsonl", [{**FINE, "label": "mine"}])
    score = ("score", llama_bundle, "--labels", "yes,no", "--data", rows)
    assert edgeprefix(*score).returncode == 0
    done = edgeprefix(*score, "--out", tmp_path / "out.jsonl")
    assert "rows.jsonl:1: field 'label' is where the result goes" in done.stderr


def test_scores_of_good_rows_survive_a_bad_one(
    edgeprefix: Edgeprefix, llama_bundle: Path, task: Path, tmp_path: Path
) -> None:
    rows = write(tmp_path / "rows.jsonl", [FINE, LONG, HALF])
    out = tmp_path / "out.jsonl"
    typed = ("score", llama_bundle, "--prefix", task, "--data", rows, "--max-length", 128, "--json")
    done = edgeprefix(*typed, "--out", out)
    facts = json.loads(done.stdout)
    assert (done.returncode, facts["rows"], facts["failed"]) == (1, 2, 1)
    assert ["label" in row for row in read(out)] == [True, False, True]
    assert f"error: {rows}:2: " in done.stderr
    whole = out.read_text()
    (tmp_path / "out.jsonl.partial").write_text("".join(whole.splitlines(keepends=True)[:2]))
    out.unlink()
    again = edgeprefix(*typed, "--out", out, "--resume")
    assert (json.loads(again.stdout), out.read_text()) == (facts, whole)
    plain = edgeprefix(*typed)
    assert (json.loads(plain.stdout), plain.returncode) == (facts, 1)


def test_a_folder_as_out_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists already; choose another --out"):
        ResultFile(tmp_path, resume=False, force=True)


def test_a_full_disk_is_one_error_and_leaves_what_was_done(tmp_path: Path) -> None:
    """The last bytes are refused once more when the file is closed."""
    results = ResultFile(tmp_path / "out.jsonl", resume=False)
    with pytest.raises(OutputError, match="No space left"), results:
        results.write({"a": 1})
        results._file.close()
        results._file = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115
        results.write({"a": 2})
    with ResultFile(tmp_path / "out.jsonl", resume=True) as results:
        assert results.rows == [{"a": 1}]
