"""run, score and inspect as they are typed: output, exit codes, one clear line when something is
wrong.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from bundles import make_prefix
from command import Edgeprefix

from edgeprefix.bench.cli import bench_app
from edgeprefix.cli.common import ResultFile
from edgeprefix.cli.compile import compile_app
from edgeprefix.runtime import Prefix, TaskPack
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.errors import OutputError
from tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def task_file(llama_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pack = TaskPack(prompt="{input} ->", labels=("yes", "no"), stop=("\n",))
    path = tmp_path_factory.mktemp("task") / "intent.safetensors"
    make_prefix(Manifest.load(llama_bundle), "intent", 4, pack=pack).save(path)
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(
            json.dumps({"input": f"row {n}", "target": ("yes", "no")[n % 2]}) + "\n"
            for n in range(7)
        )
    )
    return path


def test_run_streams_one_prompt(
    edgeprefix: Edgeprefix, llama_bundle: Path, task_file: Path
) -> None:
    typed = edgeprefix(
        "run", llama_bundle, "--prefix", task_file, "--input", "hello", "--max-new-tokens", 5
    )
    assert typed.returncode == 0, typed.stderr
    from_stdin = edgeprefix(
        "run",
        llama_bundle,
        "--prefix",
        task_file,
        "--input",
        "-",
        "--max-new-tokens",
        5,
        "--json",
        stdin="hello",
    )
    described = json.loads(from_stdin.stdout)
    assert described["text"] + "\n" == typed.stdout
    assert described["tokens"] <= 5


def test_the_cache_is_announced_before_it_is_made_and_refused_with_numbers(
    edgeprefix: Edgeprefix, llama_bundle: Path, tmp_path: Path
) -> None:
    sizes = ("--max-batch", 3, "--max-length", 100)
    done = edgeprefix("run", llama_bundle, "--input", "x", "--max-new-tokens", 2, *sizes)
    assert re.match(r"cache: 3 rows x 100 positions = 0\.1 MiB, [\d,]+ MiB are free\n", done.stderr)
    vast = edgeprefix(
        "run", llama_bundle, "--input", "x", "--max-batch", 10_000_000, "--max-length", 256
    )
    said, refused = vast.stderr.splitlines()
    assert said.startswith("cache: 10000000 rows x 256 positions = 1,250,000.0 MiB")
    assert re.match(
        (
            r"error: a cache of 10000000 rows x 256 positions needs 1250000 MiB, \d+ MiB are free; "
            r"lower"
        ),
        refused,
    )
    assert vast.returncode == 1


def test_run_gives_samples_beams_and_logprobs(
    edgeprefix: Edgeprefix, llama_bundle: Path, rows: Path
) -> None:
    short = ("run", llama_bundle, "--input", "hello", "--max-new-tokens", 4, "--max-batch", 3)
    samples = edgeprefix(
        *short, "--n", 3, "--temperature", 1, "--seed", 1, "--json", "--logprobs", 2
    )
    described = json.loads(samples.stdout)
    assert len(described["alternatives"]) == 2
    assert [len(entry["top"]) for entry in described["logprobs"]] == [2] * described["tokens"]
    beams = json.loads(edgeprefix(*short, "--beams", 3, "--n", 2, "--json").stdout)
    assert beams["score"] >= beams["alternatives"][0]["score"]
    assert (
        edgeprefix(*short, "--beams", 2, "--top-k", 5).stderr.count("leave top_k out or beams=2")
        == 1
    )
    assert (
        edgeprefix("run", llama_bundle, "--data", rows, "--out", "o", "--logprobs", 1).returncode
        == 2
    )


def test_run_over_rows_and_resume(
    edgeprefix: Edgeprefix, llama_bundle: Path, task_file: Path, rows: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    options = (
        "--prefix",
        task_file,
        "--data",
        rows,
        "--max-new-tokens",
        4,
        "--temperature",
        1,
        "--seed",
        3,
    )
    assert edgeprefix("run", llama_bundle, *options, "--out", out).returncode == 0
    lines = out.read_text().splitlines()
    assert [json.loads(line)["input"] for line in lines] == [f"row {n}" for n in range(7)]

    again = edgeprefix("run", llama_bundle, *options, "--out", out)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "exists already; choose another --out" in again.stderr

    other = tmp_path / "other.jsonl"  # interrupted in the middle of its fourth row
    other.with_name("other.jsonl.partial").write_text("\n".join(lines[:3]) + "\n" + lines[3][:9])
    assert edgeprefix("run", llama_bundle, *options, "--out", other, "--resume").returncode == 0
    assert other.read_text() == out.read_text()
    assert not other.with_name("other.jsonl.partial").exists()


def test_an_interrupted_run_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        with ResultFile(tmp_path / "out.jsonl", resume=False) as results:
            results.write({"a": 1})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "with --resume goes on" in " ".join(capsys.readouterr().err.split())
    with ResultFile(tmp_path / "out.jsonl", resume=True) as results:
        assert results.done == 1


def test_score_prints_accuracy(
    edgeprefix: Edgeprefix, llama_bundle: Path, task_file: Path, rows: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.jsonl"
    done = edgeprefix(
        "score", llama_bundle, "--prefix", task_file, "--data", rows, "--json", "--out", out
    )
    found = json.loads(done.stdout)
    scored = [json.loads(line) for line in out.read_text().splitlines()]
    assert found["accuracy"] == sum(row["label"] == row["target"] for row in scored) / 7
    assert found["labels"]["yes"]["rows"] == 4
    assert set(scored[0]["scores"]) == {"yes", "no"}
    assert sum(sum(row.values()) for row in found["confusion"].values()) == 7
    table = edgeprefix("score", llama_bundle, "--prefix", task_file, "--data", rows, "--calibrate")
    assert "→ yes" in table.stdout
    assert "accuracy" in table.stdout.splitlines()[-1]


def test_score_goes_on_where_it_was_interrupted(
    edgeprefix: Edgeprefix, llama_bundle: Path, task_file: Path, rows: Path, tmp_path: Path
) -> None:
    out, other = tmp_path / "scores.jsonl", tmp_path / "other.jsonl"
    typed = ("score", llama_bundle, "--prefix", task_file, "--data", rows, "--json")
    whole = edgeprefix(*typed, "--out", out)
    lines = out.read_text().splitlines()
    other.with_name("other.jsonl.partial").write_text("\n".join(lines[:3]) + "\n" + lines[3][:9])
    resumed = edgeprefix(*typed, "--out", other, "--resume")
    assert (resumed.stdout, other.read_text()) == (whole.stdout, out.read_text())
    other.with_name("other.jsonl.partial").write_text("\n".join(lines[1:3]) + "\n")
    foreign = edgeprefix(*typed, "--out", other, "--resume", "--force")
    assert "rows.jsonl:1 is not the row that the interrupted run had scored there" in foreign.stderr
    assert edgeprefix(*typed, "--resume").returncode == 2
    other.with_name("other.jsonl.partial").write_text("no json\n")
    assert (
        "is no interrupted result"
        in edgeprefix(*typed, "--out", other, "--resume", "--force").stderr
    )


def test_keys_signatures_and_who_insists_on_them(
    edgeprefix: Edgeprefix, llama_bundle: Path, task_file: Path, rows: Path, tmp_path: Path
) -> None:
    assert edgeprefix("keygen", "--out", tmp_path / "me").returncode == 0
    assert edgeprefix("keygen", "--out", tmp_path / "you").returncode == 0
    file, mine, yours = (tmp_path / name for name in ("s.safetensors", "me.pub", "you.pub"))
    done = edgeprefix("sign", task_file, "--key", tmp_path / "me.key", "--out", file)
    assert (done.returncode, "signed with key" in done.stdout) == (0, True), done.stderr
    assert Prefix.load(file).to_bytes() == task_file.read_bytes()
    run = ("run", llama_bundle, "--input", "x", "--max-new-tokens", 1)
    score = ("score", llama_bundle, "--data", rows)
    for command in (run, score):
        insisting = (*command, "--require-signature", mine)
        assert edgeprefix(*insisting, "--prefix", file).returncode == 0
        unsigned = edgeprefix(*insisting, "--prefix", task_file)
        assert (unsigned.returncode, "is not signed" in unsigned.stderr) == (1, True)
        other = edgeprefix(*command, "--require-signature", yours, "--prefix", file)
        assert "which is none of the 1 trusted" in other.stderr
    assert "by a trusted key" in edgeprefix("inspect", file, "--require-signature", mine).stdout
    assert json.loads(edgeprefix("inspect", file, "--json").stdout)["signature"].startswith("not ")
    assert json.loads(edgeprefix("inspect", task_file, "--json").stdout)["signature"] == "none"
    again = edgeprefix("sign", task_file, "--key", tmp_path / "me.key", "--out", file)
    assert "exists already; choose another --out" in again.stderr


def test_inspect_shows_files_and_bundles(
    edgeprefix: Edgeprefix, llama_bundle: Path, task_file: Path
) -> None:
    facts = json.loads(edgeprefix("inspect", task_file, "--json").stdout)
    assert (facts["kind"], facts["task"], facts["length"], facts["labels"]) == (
        "prefix",
        "intent",
        4,
        ["yes", "no"],
    )
    assert facts["base"]["name"] == "tiny-llama"
    bundle = json.loads(edgeprefix("inspect", llama_bundle, "--json", "--check").stdout)
    assert (bundle["kind"], bundle["vocabulary"], len(bundle["layers"])) == ("bundle", 384, 2)
    assert "tiny-llama" in edgeprefix("inspect", llama_bundle).stdout
    assert "intent" in edgeprefix("inspect", task_file).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("run", "{bundle}", "--prefix", "{tmp}/none.safetensors", "--input", "x"),
            "none.safetensors cannot be read",
        ),
        (("run", "{tmp}", "--input", "x"), "is no bundle: it has no manifest.json"),
        (("run", "{bundle}", "--prefix", "{cut}", "--input", "x"), "truncated or altered"),
        (("run", "{bundle}", "--prefix", "{foreign}", "--input", "x"), "belongs to base tiny-gpt2"),
        (
            ("run", "{bundle}", "--data", "{bad}", "--out", "{tmp}/o.jsonl"),
            "bad.jsonl:2: not a row",
        ),
        (
            ("run", "{bundle}", "--data", "{tmp}/no.jsonl", "--out", "{tmp}/o.jsonl"),
            "no.jsonl does not exist",
        ),
        (
            ("run", "{bundle}", "--data", "{rows}", "--out", "/proc/nowhere/o.jsonl"),
            "cannot write /proc/nowhere/o.jsonl",
        ),
        (
            ("run", "{bundle}", "--input", "x", "--top-p", "7"),
            "top_p=7.0: expected a number, above 0 and at most 1",
        ),
        (
            ("run", "{bundle}", "--input", "x", "--provider", "Nope"),
            "provider 'Nope' is not installed",
        ),
        (("score", "{bundle}", "--data", "{rows}"), "no options to score"),
        (
            ("score", "{bundle}", "--data", "{rows}", "--labels", "a,b"),
            "rows.jsonl:1: target 'yes' is none of the labels a, b",
        ),
        (("inspect", "{tmp}/none"), "does not exist; give a prefix file or a bundle folder"),
    ],
)
def test_what_can_go_wrong_is_one_line_and_exit_code_1(
    edgeprefix: Edgeprefix,
    llama_bundle: Path,
    gpt2_bundle: Path,
    task_file: Path,
    rows: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    (tmp_path / "cut.safetensors").write_bytes(task_file.read_bytes()[:-9])
    make_prefix(Manifest.load(gpt2_bundle), "foreign", 2).save(tmp_path / "foreign.safetensors")
    (tmp_path / "bad.jsonl").write_text('{"input": "a"}\n{"input": \n')
    places = {
        "bundle": llama_bundle, "tmp": tmp_path, "rows": rows, "bad": tmp_path / "bad.jsonl",
        "cut": tmp_path / "cut.safetensors", "foreign": tmp_path / "foreign.safetensors",
    }  # fmt: skip
    done = edgeprefix(*(argument.format(**places) for argument in arguments))
    assert done.returncode == 1, done.stderr
    assert "\nerror: " in f"\n{done.stderr}"
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    ["run", "run b", "run b --input x --data y", "run b --data y", "score b", "inspect"],
)
def test_wrong_usage_is_exit_code_2(edgeprefix: Edgeprefix, arguments: str) -> None:
    assert edgeprefix(*arguments.split()).returncode == 2


def test_a_real_process_runs_without_torch(llama_bundle: Path, task_file: Path) -> None:
    program = (
        "import sys\nfrom edgeprefix.cli.root import main\n"
        "try: main()\nexcept SystemExit as ended: assert not ended.code, ended.code\n"
        "assert not {'torch', 'transformers', 'onnx'} & set(sys.modules)\n"
    )
    arguments = [
        "run",
        str(llama_bundle),
        "--prefix",
        str(task_file),
        "--input",
        "hello",
        "--max-new-tokens",
        "3",
    ]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def run_app(app: typer.Typer, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Runs a command by itself."""
    with pytest.raises(SystemExit) as ended:
        app([str(argument) for argument in arguments])
    assert not ended.value.code
    return capsys.readouterr().out


def test_compile_writes_a_prefix_that_run_takes(
    edgeprefix: Edgeprefix, llama_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text("The quick brown fox jumps")
    out = tmp_path / "fox.safetensors"
    options = ("--task", "fox", "--out", out, "--labels", "yes,no", "--dtype", "fp32")
    run_app(compile_app, capsys, llama_bundle, "--text-file", tmp_path / "text.txt", *options)
    assert Prefix.load(out).pack.labels == ("yes", "no")
    done = edgeprefix(
        "run", llama_bundle, "--prefix", out, "--input", " over the lazy", "--max-new-tokens", 8
    )
    whole = edgeprefix(
        "run",
        llama_bundle,
        "--input",
        "The quick brown fox jumps over the lazy",
        "--max-new-tokens",
        8,
    )
    assert done.stdout == whole.stdout
    with pytest.raises(OutputError, match="exists already; choose another --out"):
        compile_app([str(llama_bundle), "--text", "x", *map(str, options)], standalone_mode=False)


def test_bench_measures(
    llama_bundle: Path, task_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bench.json"
    sizes = ("--prompt-tokens", 9, "--new-tokens", 5, "--rounds", 2, "--max-batch", 2)
    shown = run_app(bench_app, capsys, llama_bundle, "--prefix", task_file, *sizes, "--json", out)
    numbers = json.loads(out.read_text())
    assert "tokens/s" in shown
    assert numbers["decode_tokens_per_s"] > 0
    assert numbers["first_token_ms"]["p50"] <= numbers["first_token_ms"]["worst"]


def test_stop_and_template_take_the_escapes_of_training(
    edgeprefix: Edgeprefix, llama_bundle: Path
) -> None:
    """What is typed as backslash and n is a line break, in the prompt and as a stop."""

    def completed(*options: str) -> dict[str, Any]:
        made = edgeprefix(
            "run", llama_bundle, "--input", "hello", "--max-new-tokens", 9, "--json", *options
        )
        assert made.returncode == 0, made.stderr
        return dict(json.loads(made.stdout))

    typed = completed("--template", r"{input}\n->")
    assert typed["text"] == completed("--template", "{input}\n->")["text"]
    assert typed["prompt_tokens"] < completed("--template", r"{input}\\n->")["prompt_tokens"]
    (line_break,) = tiny_tokenizer().encode("\n")
    forced = ["--logit-bias", f"{line_break}:100"]
    assert completed(*forced)["finish_reason"] == "length"
    assert completed(*forced, "--stop", r"\n")["finish_reason"] == "stop"
