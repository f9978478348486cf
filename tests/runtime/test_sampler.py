"""The sampler as a whole against transformers' own logits processors: greedy tokens, and how often
each token comes over many seeds.

Every case says what would come without its option, and is refused when that is nearly the same: so
a sampler that forgets an option fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import torch_logits, torch_model
from transformers import LogitsProcessor, PreTrainedModel
from transformers.generation import logits_process as reference

from edgeprefix.runtime import Engine, Request
from edgeprefix.runtime.generation.options import GenerationOptions
from edgeprefix.runtime.generation.sampler import Sampler, Vocabulary

SIZE, END = 64, (0, 5)
PROMPT, TOKENS = [7, 3, 9, 3, 30], [11, 12, 11, 3]  # 3 is in both, and 9 follows it; so does 30
DRAWS, TOLERANCE = 2000, 0.08


class OpenAiPenalties(LogitsProcessor):
    """Presence and frequency penalty, which transformers does not have."""

    def __init__(self, start: int, presence: float, frequency: float) -> None:
        self.start, self.presence, self.frequency = start, presence, frequency

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        for row, ids in enumerate(input_ids[:, self.start :].tolist()):
            for token in set(ids):
                scores[row, token] -= self.presence + self.frequency * ids.count(token)
        return scores


@dataclass(frozen=True)
class Case:
    """An option, and what it is in transformers."""

    options: dict[str, Any]
    processor: LogitsProcessor
    words: dict[str, Any] = field(default_factory=dict)


def openai(presence: float, frequency: float) -> OpenAiPenalties:
    return OpenAiPenalties(len(PROMPT), presence, frequency)


EDITS = {
    "bias": Case(
        {"logit_bias": {2: 4.0, 7: -np.inf, 33: -3.0}},
        reference.SequenceBiasLogitsProcessor([[[2], 4.0], [[7], -np.inf], [[33], -3.0]]),
    ),
    "repetition": Case(
        {"repetition_penalty": 1.8}, reference.RepetitionPenaltyLogitsProcessor(1.8)
    ),
    "presence": Case({"presence_penalty": 2.5}, openai(2.5, 0)),
    "frequency": Case({"frequency_penalty": 1.5}, openai(0, 1.5)),
    "n-gram of two": Case({"no_repeat_ngram": 2}, reference.NoRepeatNGramLogitsProcessor(2)),
    "n-gram of one": Case({"no_repeat_ngram": 1}, reference.NoRepeatNGramLogitsProcessor(1)),
    "banned": Case(
        {},
        reference.NoBadWordsLogitsProcessor([[40], [11, 3, 41], [3, 42]], eos_token_id=None),
        {"banned": ((40,), (11, 3, 41), (3, 42))},
    ),
    "least": Case(
        {"min_new_tokens": 5},
        reference.MinNewTokensLengthLogitsProcessor(len(PROMPT), 5, eos_token_id=list(END)),
    ),
}
FILTERS = {
    "temperature": Case({"temperature": 0.4}, reference.TemperatureLogitsWarper(0.4)),
    "hot": Case({"temperature": 3.0}, reference.TemperatureLogitsWarper(3.0)),
    "top-k": Case({"top_k": 3}, reference.TopKLogitsWarper(3)),
    "top-p": Case({"top_p": 0.5}, reference.TopPLogitsWarper(0.5)),
    "min-p": Case({"min_p": 0.3}, reference.MinPLogitsWarper(0.3)),
    "typical-p": Case({"typical_p": 0.4}, reference.TypicalLogitsWarper(0.4)),
}
# In transformers' order, each loose enough to leave the next one something to do
TOGETHER = {
    "bias": Case({"logit_bias": {2: 1.0}}, reference.SequenceBiasLogitsProcessor([[[2], 1.0]])),
    "repetition": Case(
        {"repetition_penalty": 1.1}, reference.RepetitionPenaltyLogitsProcessor(1.1)
    ),
    "penalties": Case({"presence_penalty": 0.2, "frequency_penalty": 0.2}, openai(0.2, 0.2)),
    "n-gram": EDITS["n-gram of two"],
    "banned": EDITS["banned"],
    "least": EDITS["least"],
    "temperature": Case({"temperature": 1.6}, reference.TemperatureLogitsWarper(1.6)),
    "top-k": Case({"top_k": 18}, reference.TopKLogitsWarper(18)),
    "top-p": Case({"top_p": 0.93}, reference.TopPLogitsWarper(0.93)),
    "min-p": Case({"min_p": 0.12}, reference.MinPLogitsWarper(0.12)),
    "typical-p": Case({"typical_p": 0.8}, reference.TypicalLogitsWarper(0.8)),
}


def logits_of(seed: int) -> np.ndarray:
    """Random, with every token that an edit is about among the likely ones."""
    random = np.random.default_rng(seed)
    logits = random.standard_normal(SIZE) * 1.5
    logits[[0, 2, 3, 5, 7, 9, 11, 12, 30, 40, 41, 42]] += 2.5
    return logits.astype(np.float32)


def sampler_of(*cases: Case, **more: Any) -> Sampler:
    options: dict[str, Any] = {}
    words: dict[str, Any] = {}
    for case in cases:
        options |= case.options
        words |= case.words
    return Sampler(
        GenerationOptions(**options | more), Vocabulary(size=SIZE, end_ids=END, **words), PROMPT
    )


def processed(logits: np.ndarray, *cases: Case) -> torch.Tensor:
    """transformers' logits [V] behind prompt and text."""
    scores = torch.tensor(logits[None].copy())
    for case in cases:
        scores = case.processor(torch.tensor([PROMPT + TOKENS]), scores)
    return scores[0]


def shares_of(logits: np.ndarray, *cases: Case) -> np.ndarray:
    """How often each token should come."""
    return torch.softmax(processed(logits, *cases), -1).numpy()


def drawn(logits: np.ndarray, *cases: Case) -> np.ndarray:
    """How often each token comes, a seed for each draw."""
    heated = any("temperature" in case.options for case in cases)
    more = {} if heated else {"temperature": 1.0}
    tokens = [sampler_of(*cases, seed=seed, **more)(logits, TOKENS, 9) for seed in range(DRAWS)]
    return np.bincount(tokens, minlength=SIZE) / DRAWS


def difference(shares: np.ndarray, others: np.ndarray) -> float:
    """Total variation."""
    return float(np.abs(shares - others).sum() / 2)


def assert_same_shares(shares: np.ndarray, expected: np.ndarray) -> None:
    assert not shares[expected == 0].any()
    assert difference(shares, expected) < TOLERANCE


@pytest.mark.parametrize("name", EDITS)
def test_greedy_tokens_are_transformers(name: str) -> None:
    changed, sampler = 0, sampler_of(EDITS[name])
    for seed in range(60):
        logits = logits_of(seed)
        best = int(processed(logits, EDITS[name]).argmax())
        assert sampler(logits, TOKENS, 9) == best
        changed += best != logits.argmax()
    assert changed >= 3  # else the option was not tried


def test_greedy_tokens_with_all_edits_are_transformers() -> None:
    sampler = sampler_of(*EDITS.values())
    for seed in range(60):
        logits = logits_of(seed)
        assert sampler(logits, TOKENS, 9) == int(processed(logits, *EDITS.values()).argmax())


@pytest.mark.parametrize("name", ["bias", "repetition", "n-gram of two", *FILTERS])
def test_drawn_tokens_come_as_often_as_transformers_say(name: str) -> None:
    case, logits = (EDITS | FILTERS)[name], logits_of(1)
    expected = shares_of(logits, case)
    assert difference(expected, shares_of(logits)) > 2 * TOLERANCE
    assert_same_shares(drawn(logits, case), expected)


def test_all_options_at_once_leave_transformers_distribution() -> None:
    tried = dict.fromkeys(TOGETHER, 0.0)
    for logits in (logits_of(38), logits_of(16)):
        expected = shares_of(logits, *TOGETHER.values())
        for name in TOGETHER:
            others = [case for other, case in TOGETHER.items() if other != name]
            tried[name] = max(tried[name], difference(expected, shares_of(logits, *others)))
        assert_same_shares(drawn(logits, *TOGETHER.values()), expected)
    assert min(tried.values()) > 0.1, tried  # each of them changes what comes


# Through the engine ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(llama_bundle: Path, llama_base: Path) -> Iterator[tuple[Engine, PreTrainedModel]]:
    """An engine and the model that it was made of."""
    with Engine.load(llama_bundle, max_batch=4, max_length=96, threads=1, chunk_tokens=7) as engine:
        yield engine, torch_model(llama_base)


Pair = tuple[Engine, PreTrainedModel]
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "repetition": ({"repetition_penalty": 1.4}, {"repetition_penalty": 1.4}),
    "n-gram": ({"no_repeat_ngram": 3}, {"no_repeat_ngram_size": 3}),
    "bias": ({"logit_bias": {48: 3.0}}, {"sequence_bias": [[[48], 3.0]]}),
    "least": (
        {"min_new_tokens": 7, "logit_bias": {0: 9.0}},
        {"min_new_tokens": 7, "sequence_bias": [[[0], 9.0]]},
    ),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_the_engines_greedy_texts_are_transformers(pair: Pair, option: str) -> None:
    """Behind a prompt that holds what the base would say, so that options that look at the prompt
    have something to see.
    """
    engine, model = pair
    start = list(range(30, 42))
    liked = engine.generate(start, max_new_tokens=12, ignore_end=True).tokens
    prompt = [*start, *liked, *start]
    ours, theirs = OPTIONS[option]
    found = engine.generate(prompt, max_new_tokens=14, **ours)
    ids = torch.tensor([prompt])
    rows = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=14, do_sample=False,
        eos_token_id=0, pad_token_id=1, **theirs,
    )  # fmt: skip
    assert list(found.tokens) == [token for token in rows[0, len(prompt) :].tolist() if token > 1]
    assert found.tokens != engine.generate(prompt, max_new_tokens=14).tokens


def test_the_engine_draws_as_often_as_transformers_say(pair: Pair) -> None:
    engine, model = pair
    prompt = [*range(30, 42), *range(34, 40)]
    settings = {"temperature": 0.6, "top_k": 30, "top_p": 0.9, "min_p": 0.05, "typical_p": 0.8}
    chain = [
        reference.RepetitionPenaltyLogitsProcessor(1.5),
        reference.TemperatureLogitsWarper(0.6),
        reference.TopKLogitsWarper(30),
        reference.TopPLogitsWarper(0.9),
        reference.MinPLogitsWarper(0.05),
        reference.TypicalLogitsWarper(0.8),
    ]
    scores = torch.tensor(torch_logits(model, None, prompt)[-1:])
    for processor in chain:
        scores = processor(torch.tensor([prompt]), scores)
    expected = torch.softmax(scores[0], -1).numpy()
    requests = (
        Request(prompt, max_new_tokens=1, n=4, seed=seed, repetition_penalty=1.5, **settings)
        for seed in range(250)
    )
    found = [
        one.tokens[0] if one.tokens else 0
        for done in engine.generate_many(requests)
        for one in (done, *done.alternatives)
    ]
    shares = np.bincount(found, minlength=len(expected)) / len(found)
    assert not shares[expected == 0].any()
    assert difference(shares, expected) < 0.1
