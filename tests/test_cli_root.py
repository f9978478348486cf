"""The command line's root, as a real process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeprefix.cli.root import main

COMMANDS = [
    "demo",
    "train",
    "export",
    "verify",
    "compile",
    "compose",
    "run",
    "score",
    "inspect",
    "keygen",
    "sign",
    "bench",
]


def edgeprefix(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeprefix.cli.root", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_lists_every_command_without_importing_the_rooms() -> None:
    program = (
        "import sys\nfrom edgeprefix.cli.root import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    for command in COMMANDS:
        assert command in result.stdout


def test_an_unknown_command_says_what_there_is() -> None:
    result = edgeprefix("trian")
    assert result.returncode == 2
    text = " ".join(result.stderr.replace("│", " ").split())
    assert f"Did you mean 'train'? There are: {', '.join(COMMANDS)}." in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = edgeprefix(command, "--help")
    assert result.returncode == 0, result.stderr
    assert "Usage:" in result.stdout


def test_errors_are_one_line_and_exit_1(tmp_path: Path) -> None:
    result = edgeprefix("inspect", str(tmp_path / "absent"))
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr


def test_wrong_usage_exits_2() -> None:
    assert edgeprefix("inspect", "--no-such-option").returncode == 2
    assert edgeprefix("--version").stdout.startswith("edgeprefix 0.")


def test_what_no_command_foresaw_about_a_path_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An OSError or UnicodeError that reaches the root names the path and shows no traceback."""
    cases = [
        (PermissionError(13, "Permission denied", "/a\x1b[2J"), "error: /a\\x1b[2J: Permission "),
        (OSError("no number"), "error: no number"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "error: text that is no UTF-8, or"),
    ]
    for problem, line in cases:

        def fail(problem: Exception = problem) -> None:
            raise problem

        monkeypatch.setattr("edgeprefix.cli.root.app", fail)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        said = capsys.readouterr().err
        assert said.startswith(line)
        assert said.count("\n") == 1
