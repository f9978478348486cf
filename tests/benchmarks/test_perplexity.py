"""The benchmark of perplexity, on a tiny base."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edgeprefix.export import export_decoder


def test_a_bundle_has_torchs_perplexity(
    llama_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from benchmarks.perplexity import main

    export_decoder(llama_base, tmp_path / "bundle", verify=False)
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 30)
    line = ["perplexity", "--base", str(llama_base), "--text", str(tmp_path / "text.txt")]
    line += ["--window", "50", "--json", str(tmp_path / "result.json"), "--tokens"]
    monkeypatch.setattr(sys, "argv", [*line, "120"])
    main()
    monkeypatch.setattr(sys, "argv", [*line, "120", "--bundle", str(tmp_path / "bundle")])
    main()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["tokens"] == 120
    torch, bundle = result["rows"]  # torch's row of before is kept
    assert (torch["engine"], bundle["engine"]) == ("torch fp32", "bundle bundle: fp32")
    assert bundle["perplexity"] == pytest.approx(torch["perplexity"], rel=1e-5)
    assert (bundle["top1"], bundle["compared"]) == (1.0, 120)
    assert bundle["bytes"] > 100_000
    monkeypatch.setattr(sys, "argv", [*line, "60"])
    with pytest.raises(SystemExit, match="holds other settings; give a new file"):
        main()
