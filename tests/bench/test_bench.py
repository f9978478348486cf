"""`edgeprefix bench` as a user runs it: real processes over a tiny bundle; Ctrl-C, bad input,
prefix given and generated.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bundles import make_prefix
from pages import assert_stands_alone

from edgeprefix.bench.report import Report
from edgeprefix.runtime.contracts.manifest import Manifest

ROOT = (sys.executable, "-m", "edgeprefix.cli.root", "bench")
SMALL = (
    "--prompt-tokens",
    "4,20",
    "--contexts",
    "6,24",
    "--batches",
    "1,2",
    "--new-tokens",
    "4",
    "--rounds",
    "3",
    "--sweep",
    "1",
    "--threads",
    "1",
    "--budget",
    "none",
)


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "160", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*ROOT, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )


@pytest.fixture(scope="module")
def results(llama_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bench of everything, as JSON, page and what was printed."""
    folder = tmp_path_factory.mktemp("bench")
    done = bench(llama_bundle, *SMALL, "--json", folder / "a.json", "--html", folder / "a.html")
    assert done.returncode == 0, done.stderr
    (folder / "a.txt").write_text(done.stdout)
    return folder


def test_everything_is_measured_and_has_a_spread(results: Path) -> None:
    report = Report.load(results / "a.json")
    assert report.complete
    assert report.skipped == ()
    kinds = {one.cell.kind for one in report.measurements}
    assert kinds == {
        "decode",
        "prefill",
        "cold_start",
        "prefix",
        "mixed",
        "instead_of_text",
        "threads",
    }
    assert [(one.cell.batch, one.cell.context) for one in report.of("decode")] == [
        (1, 6),
        (1, 24),
        (2, 6),
        (2, 24),
    ]
    for one in report.measurements:
        for name, number in one.numbers.items():
            assert len(number.samples) == 3, (one.cell.label, name)
            assert 0 < number.least <= number.most
    parts = report.of("cold_start")[0].numbers
    known = sum(
        parts[name].value for name in ("interpreter_ms", "import_ms", "load_ms", "first_token_ms")
    )
    assert parts["total_ms"].value == pytest.approx(known, rel=0.35)


def test_the_top_of_the_file_has_what_most_people_want(results: Path) -> None:
    data = json.loads((results / "a.json").read_text())
    assert data["kind"] == "edgeprefix-bench"
    assert data["decode_tokens_per_s"] > 0
    assert data["token_ms"]["p50"] <= data["token_ms"]["p90"] <= data["token_ms"]["p99"]
    assert (
        data["first_token_ms"]["best"]
        <= data["first_token_ms"]["p50"]
        <= data["first_token_ms"]["worst"]
    )
    assert (
        data["memory"]["after_import"]
        <= data["memory"]["after_load"]
        <= data["memory"]["peak"]
        == data["peak_memory_bytes"]
    )


def test_the_machine_card_is_there_and_no_torch_was(results: Path) -> None:
    report = Report.load(results / "a.json")
    assert {"processor", "features", "cores", "governor", "load_average"} <= report.machine.keys()
    assert report.versions["onnxruntime"]
    assert report.bandwidth["memory"].value > 1e8
    assert report.circumstances["torch_loaded"] is False
    decode = report.decode
    assert decode is not None
    assert decode.limit_tokens_per_s is not None
    assert 0 <= report.circumstances["others_during"] <= 1


def test_the_page_stands_alone_and_shows_the_numbers(results: Path) -> None:
    page = (results / "a.html").read_text()
    assert_stands_alone(page)
    for shown in (
        "Decoding",
        "First token",
        "Cold start",
        "Changing the task",
        "decoding, batch 2, context 24",
        "Governor",
    ):
        assert shown in page, shown


def test_the_table_has_limit_and_spread(results: Path) -> None:
    shown = (results / "a.txt").read_text()
    for word in (
        "tokens/s",
        "limit",
        "ms p50 / p90 / p99",
        "put in place, p99",
        "memory bandwidth",
        "rounds after a warming",
    ):
        assert word in shown, word


def test_a_given_prefix_stands_before_the_prompts(llama_bundle: Path, tmp_path: Path) -> None:
    prefix, out = tmp_path / "news.safetensors", tmp_path / "b.json"
    make_prefix(Manifest.load(llama_bundle), "news", 5).save(prefix)
    sizes = (
        "--prompt-tokens",
        9,
        "--contexts",
        "12",
        "--new-tokens",
        5,
        "--rounds",
        1,
        "--max-batch",
        2,
        "--threads",
        1,
    )
    done = bench(llama_bundle, "--prefix", prefix, *sizes, "--json", out)
    assert done.returncode == 0, done.stderr
    report = Report.load(out)
    assert report.settings["prefix"] == "news.safetensors"
    assert [one.cell.prefix_positions for one in report.of("prefix")] == [5]
    assert [one.cell.batch for one in report.of("decode")] == [1, 2]
    assert not report.of("threads")
    assert "one round" in done.stdout


def test_a_budget_leaves_out_the_least_important(llama_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    done = bench(
        llama_bundle,
        "--budget",
        "6s",
        "--threads",
        1,
        "--new-tokens",
        32,
        "--rounds",
        200,
        "--json",
        out,
    )
    if done.returncode:  # on a machine so busy that opening took it all
        assert "is too short" in done.stderr
        return
    report = Report.load(out)
    assert report.measurements[0].cell.kind == "decode"
    assert report.circumstances["rounds"] < 200
    assert any("positions" in reason for _, reason in report.skipped), (
        "context 1,024 does not fit the tiny base"
    )


def test_ctrl_c_keeps_what_was_measured(llama_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "d.json"
    leader, follower = pty.openpty()  # the progress bar tells when rounds have begun
    process = subprocess.Popen(
        [*ROOT, str(llama_bundle), *SMALL, "--rounds", "5000", "--json", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=follower,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(follower)
    seen = b""
    while b"decoding" not in seen:
        seen += os.read(leader, 4096)
    while not re.search(rb"\b(?:[7-9]|\d\d) %", seen):  # the bar begins at 6 %: dozens of rounds
        seen += os.read(leader, 4096)
    process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        seen += _read(leader)
    os.close(leader)
    assert process.wait() == 1
    assert b"what was measured so far is kept" in seen
    report = Report.load(out)
    assert not report.complete
    assert report.measurements
    assert any("interrupted" in warning for warning in report.warnings)


def test_compare_says_what_differs(results: Path, tmp_path: Path) -> None:
    data = json.loads((results / "a.json").read_text())
    for one in data["measurements"]:
        number = one["numbers"].get("tokens_per_s")
        if one["cell"]["kind"] == "decode" and number:
            number["value"] *= 2
            number["samples"] = [sample * 2 for sample in number["samples"]]
    doubled = tmp_path / "doubled.json"
    doubled.write_text(json.dumps(data))
    out, page = tmp_path / "compared.json", tmp_path / "compared.html"
    done = bench("compare", results / "a.json", doubled, "--json", out, "--html", page, "--all")
    assert done.returncode == 0, done.stderr
    assert "within noise" in done.stdout
    verdicts = {
        (one["cell"]["kind"], one["name"]): one
        for one in json.loads(out.read_text())["differences"]
    }
    assert verdicts["decode", "tokens_per_s"]["ratio"] == pytest.approx(2, rel=1e-3)
    assert verdicts["prefill", "first_token_ms"]["verdict"] == "noise"
    assert_stands_alone(page.read_text())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nowhere",), 1, "nowhere is no bundle"),
        (("BUNDLE", "--budget", "0s"), 2, "leaves no time to measure anything"),
        (("BUNDLE", "--budget", "soon"), 2, "'soon' is no time"),
        (("BUNDLE", "--batches", "0,2"), 2, "expected positive numbers"),
        (("BUNDLE", "--provider", "NoSuchProvider"), 1, "is not installed"),
        (
            ("BUNDLE", "--prompt-tokens", "900", "--contexts", "900"),
            1,
            "nothing fits the base's 256 positions",
        ),
        (("BUNDLE", "--prefix", "absent.safetensors"), 1, "absent.safetensors"),
        (("compare", "absent.json", "absent.json"), 1, "absent.json does not exist"),
        (("compare", "BUNDLE/manifest.json", "absent.json"), 1, "expected 'edgeprefix-bench'"),
        (("compare", "OLD", "OLD"), 1, "format version 99 is unknown"),
    ],
)
def test_bad_input_is_one_clear_line(
    llama_bundle: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    old = tmp_path / "old.json"
    old.write_text(json.dumps({"kind": "edgeprefix-bench", "format_version": 99}))
    named = [
        argument.replace("BUNDLE", str(llama_bundle)).replace("OLD", str(old))
        for argument in arguments
    ]
    done = bench(*named)
    text = " ".join(done.stderr.replace("│", " ").split())
    assert done.returncode == code, done.stderr
    assert message in text
    assert "Traceback" not in done.stderr


def _read(descriptor: int) -> bytes:
    """What is there; nothing when the other side is closed."""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""
