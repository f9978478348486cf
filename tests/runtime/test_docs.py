"""The page about the engine and its examples do what they say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def place(
    llama_bundle: Path, prefix_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A working folder with `bundle` and `prefixes/` as the page names them."""
    (tmp_path / "bundle").symlink_to(llama_bundle)
    shutil.copytree(prefix_folder, tmp_path / "prefixes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_of_the_page_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(
        r"```python\n(.*?)```", (DOCS / "engine.md").read_text(encoding="utf-8"), re.DOTALL
    )
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "engine.md", "exec"), names)
    assert len(blocks) >= 3
    assert (place / "brief.safetensors").exists()
    assert "yes" in capsys.readouterr().out


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
