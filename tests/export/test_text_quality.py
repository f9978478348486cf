"""What a bundle costs on text: how it is counted, what is refused, and what the message offers."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from graphs import MakeBundle
from typer.testing import CliRunner

import edgeprefix.export.text_quality as module
from edgeprefix.base import Base
from edgeprefix.cli.inspect import _shown
from edgeprefix.export import export_decoder, verify
from edgeprefix.export.cli.app import export_app, verify_app
from edgeprefix.export.comparison import CaseReport
from edgeprefix.export.given_text import LARGEST, WINDOW, cut, given_texts
from edgeprefix.export.perplexity import torch_reading
from edgeprefix.export.sampled_text import sampled_texts
from edgeprefix.export.text_quality import (
    ADVICE,
    ALLOWED_LOSS,
    TextReport,
    judge,
    read_expected,
)
from edgeprefix.runtime.contracts.manifest import PRECISIONS, Manifest
from edgeprefix.runtime.errors import DataError, ParityError


def report_of(
    precision: str, *, ratio: float = 1.0, kl: float = 0.0, error: float = 0.0, **more: Any
) -> TextReport:
    case = CaseReport(
        name="text",
        positions=10,
        max_abs=0.0,
        relative=0.0,
        kl=kl,
        noise=0.0,
        top1=1.0,
        first_divergence=None,
    )
    facts: dict[str, Any] = {
        "sampled": True,
        "texts": 1,
        "tokens": 1000,
        "perplexity_torch": 20.0,
        "perplexity": 20.0 * ratio,
        "error": error,
        "compared": case,
        "precision": precision,
        "allowed": ALLOWED_LOSS[precision],
    }
    return TextReport(**(facts | more))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_bound_holds(precision: str) -> None:
    allowed = ALLOWED_LOSS[precision]
    gain = allowed - 1
    assert not report_of(precision, ratio=1 + 0.999 * gain, kl=0.999 * math.log(allowed)).failures
    (failure,) = report_of(precision, ratio=1 + 1.001 * gain).failures
    assert f"times torch's 20, at most {allowed:g} times may be" in failure
    (failure,) = report_of(precision, kl=1.001 * math.log(allowed)).failures
    assert "KL divergence" in failure
    assert report_of(precision, ratio=float("nan")).failures
    assert report_of(precision, kl=float("nan")).failures
    # What chance may have added is no reason to refuse
    assert not report_of(precision, ratio=1 + 2 * gain, error=gain).failures


def test_a_message_says_what_would_pass() -> None:
    (failure,) = report_of("int4", ratio=1.44, kl=0.31, error=0.01).failures
    assert failure == (
        "on 1,000 tokens drawn from the base itself: perplexity 28.8 is 1.44 times torch's 20, at "
        "most 1.1 times may be and KL divergence 0.31 is over 0.0953 nats, the logarithm of 1.1; "
        "choose --precision int8, or take the loss with --allow-loss 1.42"
    )
    assert not report_of("int4", ratio=1.44, kl=0.31, error=0.01, allowed=1.42).failures
    (foreign,) = report_of("int4", ratio=1.44, ours=False, sampled=False).failures
    assert "of the given text" in foreign
    assert "take a graph of more bits (--file)" in foreign
    (wrong,) = report_of("fp32", ratio=1.44).failures
    assert wrong.endswith("the graph itself is wrong")


@pytest.mark.parametrize("precision", ADVICE)
def test_what_a_message_offers_exists(precision: str) -> None:
    """Every option named is one of `export decoder`, every precision one that there is."""
    command = typer.main.get_command(export_app).commands["decoder"]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    (failure,) = report_of(precision, ratio=3.0).failures
    assert ADVICE[precision] in failure
    named = re.findall(r"--[a-z-]+", failure)
    assert named
    assert set(named) <= known
    assert set(re.findall(r"--precision (\w+)", failure)) <= set(PRECISIONS)


def test_a_bundle_is_judged_by_its_own_text(llama: Base, llama_bundle: MakeBundle) -> None:
    report = verify(llama_bundle("int4"), llama)
    text = report.text
    assert report.passed, report.to_text()
    assert text is not None
    assert text.sampled
    assert text.tokens == sum(len(drawn) - 1 for drawn in sampled_texts(llama))
    assert text.compared.positions == text.tokens  # a small vocabulary: all are compared
    assert 1e-4 < text.compared.kl < 0.1
    assert "tokens drawn from the base itself: perplexity" in report.to_text()
    strict = verify(llama_bundle("int4"), llama, allow_loss=1.0001)
    assert not strict.passed
    assert "--precision int8" in strict.failures[0]


def test_weights_that_are_right_but_too_coarse_are_refused(
    llama_base: Path, tmp_path: Path
) -> None:
    with pytest.raises(ParityError, match=r"take the loss with --allow-loss 1\.03; no bundle"):
        export_decoder(llama_base, tmp_path / "bundle", precision="int4", allow_loss=1.001)
    assert not (tmp_path / "bundle").exists()
    manifest = export_decoder(llama_base, tmp_path / "bundle", precision="int4", allow_loss=1.03)
    text = manifest.parity["text"]
    assert text["allowed"] == 1.03
    assert text["ratio"] == text["perplexity"] / text["perplexity_torch"]
    shown = _shown("parity", Manifest.load(tmp_path / "bundle").parity)
    assert "tokens drawn from the base" in shown
    old = {name: value for name, value in manifest.parity.items() if name != "text"}
    assert "drawn from the base" not in _shown("parity", old)  # of a bundle of before


def test_few_distributions_are_kept_of_a_large_vocabulary(
    llama: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Perplexity is of all tokens nevertheless."""
    texts = sampled_texts(llama)[:3]
    reading = torch_reading(llama.model, 384)
    whole = read_expected(reading, texts, vocabulary=384, sampled=True)
    monkeypatch.setattr(module, "_KEPT_BYTES", 4 * 384 * 20)
    few = read_expected(reading, texts, vocabulary=384, sampled=True)
    assert len(whole.logits) == len(whole.losses) == 3 * 95
    assert len(few.logits) == 20
    assert np.array_equal(few.losses, whole.losses)
    for index, logits in zip(few.kept, few.logits, strict=True):
        assert np.array_equal(logits, whole.logits[index])
    same = judge(reading, few, precision="fp32", allowed=1.0)
    assert (same.ratio, same.compared.kl, same.compared.positions) == (1.0, 0.0, 20)
    assert same.failures == ()


def test_text_is_read_from_files(llama: Base, tmp_path: Path) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 400
    (tmp_path / "text.txt").write_text(text)
    texts = given_texts(tmp_path / "text.txt", llama)
    assert len(texts[0]) == min(WINDOW, llama.max_positions)
    assert all(window[0] == llama.begin_id for window in texts)
    ids = np.concatenate([window[1:] for window in texts])
    assert llama.tokenizer is not None
    assert ids.tolist() == llama.tokenizer.encode(text).ids[: len(ids)]
    assert LARGEST - len(texts[0]) < len(ids) <= LARGEST
    rows = [{"input": "name: Ann", "target": "Ann eats."}, {"input": "food", "target": "pasta"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, second = given_texts(tmp_path / "rows.jsonl", llama)
    assert llama.tokenizer.decode(first[1:].tolist()) == "name: Ann\nAnn eats."
    assert llama.tokenizer.decode(second[1:].tolist()) == "food\npasta"
    assert len(cut(text, llama, window=64, largest=130)) == 3
    assert cut(text, llama, largest=0) == []


def test_what_is_no_text_is_refused(llama: Base, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for name, message in (
        ("empty.txt", "holds no text; give a text file, or rows"),
        ("latin.txt", "is not UTF-8 text"),
        ("none.txt", "does not exist; give a text file, or rows"),
        ("none.jsonl", "does not exist"),
        ("", "cannot be read"),
    ):
        with pytest.raises(DataError, match=message):
            given_texts(tmp_path / name, llama)
    with pytest.raises(DataError, match="has no tokenizer"):
        given_texts(tmp_path / "empty.txt", dataclasses.replace(llama, tokenizer=None))


def test_the_command_takes_text_and_a_loss(
    llama_base: Path, llama_bundle: MakeBundle, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 20)
    line = [str(llama_bundle("int4")), "--base", str(llama_base)]
    line += ["--text", str(tmp_path / "text.txt"), "--json", str(tmp_path / "report.json")]
    result = CliRunner().invoke(verify_app, line)
    assert result.exit_code == 0, result.output
    assert "tokens of the given text: perplexity" in result.output
    assert json.loads((tmp_path / "report.json").read_text())["text"]["sampled"] is False
    result = CliRunner().invoke(verify_app, [*line, "--allow-loss", "1.0"])
    assert result.exit_code == 1
    assert "take the loss with --allow-loss 1.03" in result.output
    assert CliRunner().invoke(verify_app, [*line, "--allow-loss", "0.9"]).exit_code == 2
