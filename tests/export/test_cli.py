"""The commands, as a shell calls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from graphs import MakeBundle
from typer.testing import CliRunner

from edgeprefix.export.cli.app import export_app, verify_app
from edgeprefix.runtime.errors import OutputError

runner = CliRunner()


def test_export_decoder_says_what_it_made(llama_base: Path, tmp_path: Path) -> None:
    result = runner.invoke(
        export_app,
        ["decoder", str(llama_base), "--out", str(tmp_path / "b"), "--precision", "int8"],
    )
    assert result.exit_code == 0, result.output
    assert "llama, 2 layers, int8" in result.output
    assert "top-1 agreement with torch" in result.output
    again = runner.invoke(export_app, ["decoder", str(llama_base), "--out", str(tmp_path / "b")])
    assert isinstance(again.exception, OutputError)  # the root makes it one line and exit code 1


def test_wrong_usage_exits_2(llama_base: Path) -> None:
    result = runner.invoke(
        export_app, ["decoder", str(llama_base), "--out", "b", "--precision", "int3"]
    )
    assert result.exit_code == 2


def test_verify_reports(llama_base: Path, llama_bundle: MakeBundle, tmp_path: Path) -> None:
    arguments = [
        str(llama_bundle("fp32")),
        "--base",
        str(llama_base),
        "--json",
        str(tmp_path / "report.json"),
    ]
    result = runner.invoke(verify_app, arguments)
    assert result.exit_code == 0, result.output
    assert "fp32: equal to torch within bounds" in result.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert [case["name"] for case in report["cases"]] == [
        "prefill",
        "chunks",
        "decode",
        "prefix",
        "rows",
        "long",
    ]


def test_verify_exits_1_when_a_bound_is_broken(
    llama_base: Path, llama_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeprefix.export.parity import BOUNDS, Bounds

    monkeypatch.setitem(BOUNDS, "fp32", Bounds(relative=1e-12))  # type: ignore[arg-type]
    result = runner.invoke(verify_app, [str(llama_bundle("fp32")), "--base", str(llama_base)])
    assert result.exit_code == 1
    assert "FAILED" in result.output


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to catch")
def test_an_export_that_is_ended_leaves_nothing(llama_base: Path, tmp_path: Path) -> None:
    """SIGTERM, as an orchestrator sends it, goes through every `finally`."""
    out = tmp_path / "bundles" / "bundle"
    command = ["export", "decoder", str(llama_base), "--out", str(out)]
    with subprocess.Popen([sys.executable, "-m", "edgeprefix.cli.root", *command]) as export:
        while export.poll() is None and not list(out.parent.glob(".bundle.*.tmp")):
            time.sleep(0.05)
        export.terminate()
    assert export.returncode == 128 + signal.SIGTERM
    assert list(out.parent.iterdir()) == []
