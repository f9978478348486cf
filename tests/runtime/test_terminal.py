"""What is printed is data: whatever a file, a path or a label holds comes out as it is."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path

from bundles import make_prefix
from command import Edgeprefix
from rich.progress import Progress

from edgeprefix.cli.terminal import printable, terminal, text_column
from edgeprefix.runtime import TaskPack
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.train.cli import _Display

HOSTILE = "[/INST] [red] :smile: [link=x]"
PROJECT = Path(__file__).parents[2]
PACKAGES = ("base", "train", "export", "runtime", "cli", "page", "demo", "benchmarks/bench")


def markup_calls(path: Path) -> list[str]:
    """Places where a text could be read as markup: everything of rich that reads one by default."""
    readers = {"Console", "TextColumn", "from_markup"}
    return [
        f"{path.relative_to(PROJECT)}:{node.lineno} {ast.unparse(node.func)}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in readers
    ]


def test_only_one_file_makes_consoles_and_columns() -> None:
    """Every console and column comes from cli/terminal.py, where markup is off."""
    found = [
        call
        for package in PACKAGES
        for path in sorted((PROJECT / package).rglob("*.py"))
        for call in markup_calls(path)
    ]
    assert [place for place in found if not place.startswith("cli/terminal.py")] == []
    assert found  # the search sees them


def test_inspect_shows_a_hostile_pack_as_it_is(
    edgeprefix: Edgeprefix, llama_bundle: Path, tmp_path: Path
) -> None:
    pack = TaskPack(
        prompt=f"{HOSTILE}{{input}}",
        labels=(HOSTILE,),
        stop=(HOSTILE,),
        licence=f"\x1b]0;title\x07{HOSTILE}",
        recipe={HOSTILE: HOSTILE},
        metrics={HOSTILE: 1.0},
    )
    path = tmp_path / "[/INST].safetensors"
    make_prefix(Manifest.load(llama_bundle), "t", 2, pack=pack).save(path)
    shown = edgeprefix("inspect", path)
    assert shown.returncode == 0, shown.stderr
    for part in ("[/INST]", "[red]", ":smile:", "[link=x]", "\\x1b]0;title\\x07"):
        assert part in shown.stdout
    assert "\x1b" not in shown.stdout


def test_results_with_brackets_in_their_names(
    edgeprefix: Edgeprefix, llama_bundle: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "[rows].jsonl"
    rows.write_text(json.dumps({"input": HOSTILE, "target": "[/b]"}) + "\n")
    out, scores = tmp_path / "[/INST] [red].jsonl", tmp_path / "[/b].jsonl"
    done = edgeprefix("run", llama_bundle, "--data", rows, "--out", out, "--max-new-tokens", 2)
    assert done.returncode == 0, done.stderr
    assert "[/INST] [red].jsonl" in done.stderr.replace("\n", "")
    assert json.loads(out.read_text())["input"] == HOSTILE
    scored = edgeprefix(
        "score", llama_bundle, "--data", rows, "--labels", "[/b],[red]", "--out", scores
    )
    assert scored.returncode == 0, scored.stderr
    assert "→ [/b]" in scored.stdout
    assert len(scores.read_text().splitlines()) == 1


def test_prefixes_with_brackets_in_their_names(
    edgeprefix: Edgeprefix, llama_bundle: Path, tmp_path: Path
) -> None:
    one, both = tmp_path / "[/one].safetensors", tmp_path / "[red].safetensors"
    done = edgeprefix("compile", llama_bundle, "--text", "hi", "--task", "one", "--out", one)
    assert (done.returncode, "[/one].safetensors" in done.stderr) == (0, True), done.stderr
    done = edgeprefix(
        "compose", one, one, "--bundle", llama_bundle, "--task", "both", "--out", both
    )
    assert (done.returncode, "[red].safetensors" in done.stderr) == (0, True), done.stderr
    wrong = edgeprefix("[/INST]")
    assert wrong.returncode == 2
    assert "[/INST]" in wrong.stderr


def test_notes_bars_and_headlines_show_brackets() -> None:
    written = io.StringIO()
    console = terminal()
    console.file, console.width = written, 200
    with Progress(text_column(), text_column("{task.fields[facts]}"), console=console) as bars:
        bars.add_task(HOSTILE, facts=HOSTILE)
    assert written.getvalue().count(HOSTILE) == 2
    display = _Display(console, rate_open=False)
    display._bar.update(display._task, description=HOSTILE, facts=HOSTILE)
    console.print(display._bar.make_tasks_table(display._bar.tasks))
    assert written.getvalue().count(HOSTILE) == 4


def test_control_characters_are_shown() -> None:
    assert printable("a\x1b[2Jb\r\x9b\x7f\n\tü") == "a\\x1b[2Jb\\x0d\\x9b\\x7f\n\tü"
