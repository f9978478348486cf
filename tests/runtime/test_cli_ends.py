"""How commands end when they are told to, and what they do with streams that are closed, full or of
another encoding: one line, nothing lost, nothing left behind.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgeprefix.cli.results import ResultFile
from edgeprefix.runtime.errors import OutputError

COMMAND = [sys.executable, "-m", "edgeprefix.cli.root"]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX streams and signals")


def typed(bundle: Path, *arguments: object) -> list[str]:
    return [*COMMAND, "run", str(bundle), "--max-new-tokens", "4", *map(str, arguments)]


def ended(command: list[str], **options: Any) -> tuple[int, list[str]]:
    """Exit code and the lines on stderr that are errors."""
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, **options)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done.returncode, [line for line in done.stderr.splitlines() if "error" in line]


def test_input_that_is_no_text(llama_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"caf\xe9\r\nnow")
    with open(tmp_path / "in", "rb") as given:
        code, lines = ended(typed(llama_bundle, "--input", "-"), stdin=given)
    assert (code, len(lines)) == (1, 1)
    assert "standard input is no UTF-8 text: byte 3 is 0xe9; convert it (iconv), or" in lines[0]
    with open(tmp_path / "in", "rb") as given:
        options = {"env": os.environ | {"PYTHONIOENCODING": "latin-1"}, "stdin": given}
        assert ended(typed(llama_bundle, "--input", "-"), **options) == (0, [])


def test_input_that_is_closed(llama_bundle: Path) -> None:
    command = typed(llama_bundle, "--input", "-")
    code, lines = ended(["sh", "-c", '"$@" <&-', "sh", *command])
    assert (code, lines) == (
        1,
        ["error: standard input is closed; give the text with --input TEXT"],
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("options", [["--input", "x"], ["--input", "x", "--json"], ["--help"]])
def test_output_that_is_full(options: list[str], llama_bundle: Path) -> None:
    with open("/dev/full", "w") as full:
        code, lines = ended(typed(llama_bundle, *options), stdout=full)
    assert (code, lines) == (1, ["error: standard output: No space left on device"])


def test_json_for_a_terminal_of_few_characters(llama_bundle: Path) -> None:
    """What it lacks is escaped so that a reader of JSON gets the same value."""
    found = []
    for encoding in ("utf-8", "ascii"):
        done = subprocess.run(
            [*COMMAND, "inspect", str(llama_bundle), "--json"],
            env=os.environ | {"PYTHONIOENCODING": encoding},
            capture_output=True,
            check=True,
        )
        found.append((done.stdout.isascii(), json.loads(done.stdout)))
    assert found[1][0]
    assert found[0][1] == found[1][1]


def _not_under_nohup() -> None:
    """Whoever started the tests may ignore it, and children would too."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_job_that_is_ended_keeps_what_it_has(
    name: str, llama_bundle: Path, tmp_path: Path
) -> None:
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows.write_text("".join(f'{{"input": "row {n}"}}\n' for n in range(20_000)))
    partial = out.with_name("out.jsonl.partial")
    command = typed(llama_bundle, "--data", rows, "--out", out)
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=_not_under_nohup
    ) as job:
        while not (partial.exists() and partial.stat().st_size) and job.poll() is None:
            time.sleep(0.01)
        with pytest.raises(OutputError, match=rf"by another edgeprefix \(process {job.pid}\)"):
            ResultFile(out, resume=True)
        job.send_signal(getattr(signal, name))
        _, said = job.communicate()
    assert job.returncode in (1, 128 + getattr(signal, name))
    assert "Traceback" not in said
    assert "the same command with --resume goes on" in " ".join(said.split())
    kept = [json.loads(line)["input"] for line in partial.read_text().splitlines()]
    assert kept == [f"row {n}" for n in range(len(kept))]
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["out.jsonl.job.partial", "out.jsonl.partial", "rows.jsonl"]


def test_the_caller_may_ignore_a_signal() -> None:
    """nohup's SIGHUP stays ignored."""
    program = (
        "import signal\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from edgeprefix.cli import root\n"
        "root._unwind_when_ended()\n"
        "assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN\n"
        "assert callable(signal.getsignal(signal.SIGTERM))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
