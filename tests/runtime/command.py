"""Commands as they are typed."""

from __future__ import annotations

import io
import subprocess

import pytest

from edgeprefix.cli.root import main


class Edgeprefix:
    """Runs commands as the shell would, through the root's `main`, but without a new process for
    each.
    """

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch

    def __call__(self, *arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = ["edgeprefix", *map(str, arguments)]
        self._monkeypatch.setattr("sys.argv", command)
        self._monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as ended:
            main()
        captured = self._capsys.readouterr()
        return subprocess.CompletedProcess(
            command, int(ended.value.code or 0), captured.out, captured.err
        )
