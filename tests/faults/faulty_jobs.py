"""The commands that are killed, how a user goes on after that, and what must hold in the end."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from edgeprefix.runtime import Prefix
from edgeprefix.runtime.contracts.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command that writes into `work`, which is made anew for each try."""

    name: str
    first: Sequence[str]
    """Its arguments; `{work}` stands for the folder."""
    again: Sequence[Sequence[str]]
    """What a user types next, in this order, until one of them succeeds."""
    result: Callable[[Path], Any]
    """What the finished command has made, in a form that can be compared."""
    whole: Callable[[Path], None]
    """Raises when something in the folder is half written, at any moment."""
    start: Callable[[Path], None] = lambda work: None
    """Puts what was there before into the folder."""


def jobs(base: Path, bundle: Path, prefix: Path, rows: Path) -> list[Job]:
    """All of them, over one tiny base, its bundle, a prefix of it and some rows."""
    train = [
        "train", "--base", str(base), "--data", str(rows), "--validation", str(rows),
        "--task", "cities", "--out", "{work}/run", "--steps", "6", "--validate-every", "2",
        "--length", "4", "--batch-size", "8", "--precision", "fp32", "--lr", "0.05",
    ]  # fmt: skip
    export = ["export", "decoder", str(base), "--out", "{work}/bundle", "--precision", "int8"]
    export_prefix = [
        "export",
        "prefix",
        str(prefix),
        "--out",
        "{work}/t.safetensors",
        "--dtype",
        "fp16",
    ]
    run = [
        "run", str(bundle), "--prefix", str(prefix), "--data", str(rows), "--max-new-tokens", "5",
        "--out", "{work}/out.jsonl", "--max-length", "64", "--max-batch", "2", "--threads", "1",
    ]  # fmt: skip
    score = [
        "score", str(bundle), "--prefix", str(prefix), "--data", str(rows), "--labels", "Rome,Oslo",
        "--out", "{work}/out.jsonl", "--max-length", "64", "--max-batch", "2", "--threads", "1",
    ]  # fmt: skip
    compiled = [
        "compile", str(bundle), "--text", "Once upon a time there was a river.", "--task", "tale",
        "--out", "{work}/t.safetensors", "--threads", "1",
    ]  # fmt: skip
    return [
        Job(
            name="train",
            first=train,
            again=[[*train, "--resume"], train, [*train, "--force"]],
            result=lambda work: tensors(work / "run/prefix.safetensors"),
            whole=whole_prefixes,
        ),
        Job(
            name="export decoder",
            first=export,
            again=[export],
            result=bundle_content,
            whole=whole_bundle,
        ),
        Job(
            name="export decoder --force",
            first=[*export, "--force"],
            again=[[*export, "--force"]],
            result=bundle_content,
            whole=lambda work: whole_bundle(work, expected=True),
            start=lambda work: shutil.copytree(bundle, work / "bundle") and None,
        ),
        Job(
            name="export prefix",
            first=[*export_prefix, "--force"],
            again=[[*export_prefix, "--force"]],
            result=lambda work: tensors(work / "t.safetensors"),
            whole=lambda work: whole_prefixes(work, expected=1),
            start=lambda work: shutil.copy(prefix, work / "t.safetensors") and None,
        ),
        Job(
            name="compile",
            first=compiled,
            again=[compiled],
            result=lambda work: tensors(work / "t.safetensors"),
            whole=whole_prefixes,
        ),
        Job(name="run", first=run, again=[[*run, "--resume"], run], result=lines, whole=no_result),
        Job(
            name="score",
            first=score,
            again=[[*score, "--resume"], score],
            result=lines,
            whole=no_result,
        ),
    ]


def tensors(path: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256(array.tobytes()).hexdigest()
        for name, array in sorted(load_file(path).items())
    }


def bundle_content(work: Path) -> dict[str, Any]:
    manifest = Manifest.load(work / "bundle")
    manifest.check_files(work / "bundle", hashes=True)
    return {name: record.sha256 for name, record in sorted(manifest.files.items())}


def lines(work: Path) -> list[Any]:
    rows = [json.loads(line) for line in (work / "out.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.endswith("_ms")} for row in rows]


def whole_prefixes(work: Path, *, expected: int = 0) -> None:
    found = [path for path in work.rglob("*.safetensors") if path.name != "last.safetensors"]
    visible = [path for path in found if not path.name.startswith(".")]
    assert len(visible) >= expected, "the prefix file that was there is gone"
    for path in visible:
        Prefix.load(path)


def whole_bundle(work: Path, *, expected: bool = False) -> None:
    assert (work / "bundle").exists() or not expected, "the bundle that was there is gone"
    if (work / "bundle").exists():
        bundle_content(work)


def no_result(work: Path) -> None:
    """The result's name appears when all rows are in it, and no row is written in halves twice."""
    if (work / "out.jsonl").exists():
        lines(work)
