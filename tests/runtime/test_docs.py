"""The blocks, commands and examples of README and docs do what they say, over tiny bases."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from bundles import make_prefix
from typer.testing import CliRunner

from edgeprefix.cli.root import app
from edgeprefix.runtime import TaskPack
from edgeprefix.runtime.contracts.manifest import Manifest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture
def place(
    llama_bundle: Path, prefix_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A working folder with `bundle` and `prefixes/` as the page names them."""
    (tmp_path / "bundle").symlink_to(llama_bundle)
    shutil.copytree(prefix_folder, tmp_path / "prefixes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def run_blocks(page: str, blocks: list[str]) -> None:
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def type_commands(page: str, *, leave_out: str = "—") -> str:
    """Runs the page's lines that begin with `$ edgeprefix`, and gives what they print."""
    text = (ROOT / page).read_text(encoding="utf-8")
    printed = ""
    for line in re.findall(r"^\$ edgeprefix ((?:[^\"\n]|\"[^\"]*\")+)", text, re.MULTILINE):
        if leave_out not in line:
            done = CliRunner().invoke(app, shlex.split(line))
            assert done.exit_code == 0, (line, done.output)
            printed += done.output
    return printed


def write_shown_file(page: str, name: str) -> None:
    """Writes the file that the page shows by `$ cat NAME`."""
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = re.search(rf"^\$ cat {re.escape(name)}\n(.*?)^\$", text, re.MULTILINE | re.DOTALL)
    assert shown
    Path(name).write_text(shown[1])


def test_the_engines_page(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = python_blocks("docs/engine.md")
    run_blocks("docs/engine.md", blocks)
    assert len(blocks) >= 3
    assert (place / "brief.safetensors").exists()
    assert "yes" in capsys.readouterr().out


def test_the_pages_about_compiling_and_composing(place: Path) -> None:
    write_shown_file("docs/compile.md", "messages.txt")
    printed = type_commands("docs/compile.md", leave_out="chat")
    assert "messages.safetensors: task messages, " in printed
    assert "same likeliest token" in printed
    run_blocks("docs/compile.md", python_blocks("docs/compile.md"))
    for made in place.glob("*.safetensors"):
        made.unlink()
    assert " positions, " in type_commands("docs/compose.md")
    run_blocks("docs/compose.md", python_blocks("docs/compose.md"))


def test_readme_first_block(
    llama_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Over a tiny bundle and random prefixes where the demo's stand."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo-report/bundles").mkdir(parents=True)
    (tmp_path / "demo-report/bundles/int8").symlink_to(llama_bundle)
    (tmp_path / "demo-report/prefixes").mkdir()
    for number, name in enumerate(("trails", "polite", "triage")):
        pack = TaskPack(labels=("repair", "refund") if name == "triage" else ())
        made = make_prefix(Manifest.load(llama_bundle), name, 4 + number, pack=pack)
        made.save(tmp_path / f"demo-report/prefixes/{name}.safetensors")
    run_blocks("README.md", python_blocks("README.md"))
    assert capsys.readouterr().out.splitlines()[-1] in ("repair", "refund")


@pytest.mark.slow
def test_readme_from_rows_to_answers(
    llama_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train, export, run and score as README says; two steps over a tiny base."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "BASE").symlink_to(llama_base)
    rows = [{"input": f"row {number}", "target": ("no", "yes")[number % 2]} for number in range(8)]
    for name in ("train", "valid", "test"):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^edgeprefix (.*?)(?:\s+#.*)?$", text, re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["train", "export", "export", "run", "score"]
    for line in lines:
        extra = "--steps 2 --length 4 --labels yes,no" if line.startswith("train") else ""
        done = CliRunner().invoke(app, shlex.split(f"{line} {extra}"))
        assert done.exit_code == 0, (line, done.output, done.exception)
    assert "accuracy" in done.output


def test_ten_lines(place: Path) -> None:
    done = run_example("ten_lines.py", "bundle", "prefixes")
    assert re.search(r"code: .* \(\d+ ms\)\n\nmail: ", done.stdout)


def test_batch_job_resumes(place: Path) -> None:
    rows = [{"input": f"row {number}"} for number in range(20)]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_example("batch_job.py", "bundle", "prefixes/mail.safetensors", "rows.jsonl", "out.jsonl")
    whole = (place / "out.jsonl").read_text()
    assert [json.loads(line)["input"] for line in whole.splitlines()] == [
        row["input"] for row in rows
    ]
    (place / "out.jsonl").write_text(whole[: len(whole) // 2])
    run_example("batch_job.py", "bundle", "prefixes/mail.safetensors", "rows.jsonl", "out.jsonl")
    assert (place / "out.jsonl").read_text() == whole


def test_web_handler_serves_threads(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "examples"))
    import web_handler

    with web_handler.serve("bundle", "prefixes", 0) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        answers: dict[str, str] = {}

        def ask(task: str) -> None:
            with urllib.request.urlopen(
                f"{url}/{task}", data=b"Where is it?", timeout=60
            ) as answer:
                answers[task] = answer.read().decode()

        askers = [threading.Thread(target=ask, args=(task,)) for task in ("news", "mail", "poem")]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        expected = {
            task: web_handler.Handler.engine.generate("Where is it?", task=task).text
            for task in answers
        }
        assert answers == expected
        assert len(answers) == 3
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(f"{url}/nwes", data=b"x", timeout=60)
        server.shutdown()
        serving.join()
        web_handler.Handler.engine.close()


def run_example(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DOCS / "examples" / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done
