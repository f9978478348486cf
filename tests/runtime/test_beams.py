"""Beam search against transformers' generate(num_beams=…)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import make_prefix, torch_cache, torch_model

from edgeprefix.runtime import Completion, Engine

PROMPT = list(range(30, 42))


def assert_same(found: Completion, expected: Any) -> None:
    """Tokens and scores of all results, best first; ids 0 and 1 end and pad transformers' rows."""
    rows = expected.sequences[:, len(PROMPT) :].tolist()
    for one, tokens, score in zip((found, *found.alternatives), rows, expected.sequences_scores.tolist(), strict=True):
        assert list(one.tokens) == [token for token in tokens if token > 1]
        assert one.score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("beams", [2, 4])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0])
def test_beams_equal_transformers(bundle: Path, base: Path, beams: int, length_penalty: float) -> None:
    model = torch_model(base)
    with Engine.load(bundle, max_batch=4, max_length=96, threads=1, chunk_tokens=5) as engine:
        found = engine.generate(PROMPT, beams=beams, n=beams, length_penalty=length_penalty, max_new_tokens=12)
    expected = model.generate(
        torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT), dtype=torch.long),
        num_beams=beams,
        num_return_sequences=beams,
        length_penalty=length_penalty,
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=0,
        pad_token_id=1,
        return_dict_in_generate=True,
        output_scores=True,
    )
    assert_same(found, expected)


@pytest.mark.parametrize("end", [31, 40, 200])
def test_beams_that_end_early_equal_transformers(bundle: Path, base: Path, end: int) -> None:
    """Any token may be made likely enough to end hypotheses at different lengths; here by a bias that both sides have."""
    model = torch_model(base)
    with Engine.load(bundle, max_batch=3, max_length=96, threads=1) as engine:
        found = engine.generate(PROMPT, beams=3, n=3, max_new_tokens=10, logit_bias={0: 3.0 + end / 100})
    expected = model.generate(
        torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT), dtype=torch.long),
        num_beams=3,
        num_return_sequences=3,
        max_new_tokens=10,
        do_sample=False,
        eos_token_id=0,
        pad_token_id=1,
        sequence_bias=[[[0], 3.0 + end / 100]],
        return_dict_in_generate=True,
        output_scores=True,
    )
    assert_same(found, expected)


def test_beams_with_a_prefix_score_what_torch_says(shared_engine: Engine, llama_base: Path) -> None:
    """The score is the sum of the text's log-probabilities behind the prefix."""
    found = shared_engine.generate(
        PROMPT, prefix="news", beams=4, max_new_tokens=8, ignore_end=True, length_penalty=0.0
    )
    model, prefix = torch_model(llama_base), make_prefix(shared_engine.manifest, "news", 5)
    with torch.no_grad():
        logits = model(torch.tensor([[*PROMPT, *found.tokens]]), past_key_values=torch_cache(model, prefix)).logits[0]
    logprobs = torch.log_softmax(logits, -1)
    total = sum(float(logprobs[len(PROMPT) - 1 + place, token]) for place, token in enumerate(found.tokens))
    assert found.score == pytest.approx(total, abs=1e-4)
    greedy = shared_engine.generate(PROMPT, prefix="news", max_new_tokens=8, ignore_end=True)
    assert len(greedy.tokens) == len(found.tokens) == 8


def test_stop_texts_end_hypotheses(shared_engine: Engine) -> None:
    whole = shared_engine.generate("The quick", beams=3, max_new_tokens=12, ignore_end=True)
    stop = whole.text[4:6]
    found = shared_engine.generate(
        "The quick", beams=3, n=3, max_new_tokens=12, ignore_end=True, stop=stop, length_penalty=-3.0
    )  # a negative penalty favours short texts, so one that was stopped wins
    for one in (found, *found.alternatives):
        assert stop not in one.text
    assert found.finish_reason == "stop"
