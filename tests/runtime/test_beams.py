"""Beam search against transformers' generate(num_beams=…)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import make_prefix, torch_cache, torch_model
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    PreTrainedModel,
    RepetitionPenaltyLogitsProcessor,
)

from edgeprefix.runtime import Completion, Engine
from edgeprefix.runtime.errors import RequestError

PROMPT = list(range(30, 42))


def assert_same(found: Completion, expected: Any, prompt: Sequence[int] = PROMPT) -> None:
    """Tokens and scores of all results, best first; ids 0 and 1 end and pad transformers' rows."""
    rows = expected.sequences[:, len(prompt) :].tolist()
    for one, tokens, score in zip(
        (found, *found.alternatives), rows, expected.sequences_scores.tolist(), strict=True
    ):
        assert list(one.tokens) == [token for token in tokens if token > 1]
        assert one.score == pytest.approx(score, abs=1e-4)


def transformers_beams(
    model: PreTrainedModel,
    beams: int,
    new: int = 12,
    *,
    prompt: Sequence[int] = PROMPT,
    **options: Any,
) -> Any:
    return model.generate(
        torch.tensor([list(prompt)]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=new,
        do_sample=False,
        eos_token_id=0,
        pad_token_id=1,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        **options,
    )


@pytest.fixture(scope="module")
def pair(bundle: Path, base: Path) -> Iterator[tuple[Engine, PreTrainedModel]]:
    """An engine and the model that it was made of."""
    with Engine.load(bundle, max_batch=4, max_length=96, threads=1, chunk_tokens=5) as engine:
        yield engine, torch_model(base)


Pair = tuple[Engine, PreTrainedModel]


@pytest.mark.parametrize("beams", [2, 4])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0])
def test_beams_equal_transformers(pair: Pair, beams: int, length_penalty: float) -> None:
    engine, model = pair
    found = engine.generate(
        PROMPT, beams=beams, n=beams, length_penalty=length_penalty, max_new_tokens=12
    )
    assert_same(found, transformers_beams(model, beams, length_penalty=length_penalty))


@pytest.mark.parametrize("bias", [3.3, 3.4, 5.0, 8.0])
@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [1.0, -0.5])
def test_beams_that_end_early_equal_transformers(
    pair: Pair, bias: float, early_stopping: Any, length_penalty: float
) -> None:
    """The end is made likely enough to finish hypotheses at different lengths, by a bias that both
    sides have.
    """
    engine, model = pair
    settings: dict[str, Any] = {"early_stopping": early_stopping, "length_penalty": length_penalty}
    found = engine.generate(
        PROMPT, beams=3, n=3, max_new_tokens=10, logit_bias={0: bias}, **settings
    )
    assert_same(found, transformers_beams(model, 3, 10, sequence_bias=[[[0], bias]], **settings))


class OpenAiPenalties(LogitsProcessor):
    """Presence and frequency penalty, which transformers does not have."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        for row, ids in enumerate(input_ids[:, len(PROMPT) :].tolist()):
            for token in set(ids):
                scores[row, token] -= 0.4 + 0.3 * ids.count(token)
        return scores


class BehindThePrompt(LogitsProcessor):
    """A processor that does not see the prompt."""

    def __init__(self, processor: LogitsProcessor, length: int) -> None:
        self.processor, self.length = processor, length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        return self.processor(input_ids[:, self.length :], scores)


LOOKING_BACK: dict[str, tuple[dict[str, Any], dict[str, Any], LogitsProcessor]] = {
    "repetition": (
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 1.3},
        RepetitionPenaltyLogitsProcessor(1.3),
    ),
    "ngram": (
        {"no_repeat_ngram": 1},
        {"no_repeat_ngram_size": 1},
        NoRepeatNGramLogitsProcessor(1),
    ),
}
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "repetition": ({"repetition_penalty": 1.3}, {"repetition_penalty": 1.3}),
    "ngram": ({"no_repeat_ngram": 2}, {"no_repeat_ngram_size": 2}),
    "bias": (
        {"logit_bias": {48: 2.0, 167: -np.inf}},
        {"sequence_bias": [[[48], 2.0], [[167], float("-inf")]]},
    ),
    "least": (
        {"min_new_tokens": 6, "logit_bias": {0: 9.0}},
        {"min_new_tokens": 6, "sequence_bias": [[[0], 9.0]]},
    ),
    "penalties": (
        {"presence_penalty": 0.4, "frequency_penalty": 0.3},
        {"logits_processor": LogitsProcessorList([OpenAiPenalties()])},
    ),
}


@pytest.mark.parametrize("option", LOOKING_BACK)
def test_options_that_look_at_the_prompt_equal_transformers(pair: Pair, option: str) -> None:
    """Behind a prompt of many different tokens; transformers told to look at the generated text
    only comes to another result.
    """
    engine, model = pair
    prompt = list(range(30, 384, 5))
    ours, theirs, processor = LOOKING_BACK[option]
    found = engine.generate(prompt, beams=3, n=3, max_new_tokens=12, **ours)
    assert_same(found, transformers_beams(model, 3, prompt=prompt, **theirs), prompt)
    blind = LogitsProcessorList([BehindThePrompt(processor, len(prompt))])
    without = transformers_beams(model, 3, prompt=prompt, logits_processor=blind)
    assert found.score != pytest.approx(without.sequences_scores[0].item(), abs=1e-3)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_with_beams_equals_transformers(pair: Pair, option: str) -> None:
    engine, model = pair
    ours, theirs = OPTIONS[option]
    plain = engine.generate(PROMPT, beams=3, n=3, max_new_tokens=12)
    found = engine.generate(PROMPT, beams=3, n=3, max_new_tokens=12, **ours)
    assert_same(found, transformers_beams(model, 3, **theirs))
    assert found.score != plain.score  # else the option was not tried


def test_banned_words_with_beams_equal_transformers(pair: Pair) -> None:
    engine, model = pair
    plain = engine.generate(PROMPT, beams=3, max_new_tokens=12)
    encode, decode = engine.tokenizer.encode_piece, engine.tokenizer.decode
    pairs = [plain.tokens[place : place + 2] for place in range(1, 11)]
    # Two tokens that are text
    word = next(decode(two) for two in pairs if tuple(encode(decode(two))) == two)
    ids = [engine.tokenizer.encode_piece(text) for text in (f" {word.lstrip()}", word)]
    found = engine.generate(PROMPT, beams=3, n=3, max_new_tokens=12, banned_words=word)
    assert_same(
        found,
        transformers_beams(
            model, 3, bad_words_ids=[list(x) for x in dict.fromkeys(map(tuple, ids))]
        ),
    )
    assert word not in found.text


def test_a_forced_beginning_with_beams_equals_transformers(pair: Pair) -> None:
    engine, model = pair
    beginning = engine.tokenizer.encode_piece("Where is")
    found = engine.generate(PROMPT, beams=3, n=3, max_new_tokens=12, forced_prefix="Where is")

    def allowed(_: int, ids: torch.Tensor) -> list[int]:
        place = len(ids) - len(PROMPT)
        return beginning[place : place + 1] or list(range(384))

    assert_same(found, transformers_beams(model, 3, prefix_allowed_tokens_fn=allowed))
    assert all(one.text.startswith("Where is") for one in (found, *found.alternatives))


def test_forced_words_with_beams_appear_and_score_as_torch_says(pair: Pair) -> None:
    engine, model = pair
    found = engine.generate(
        PROMPT, beams=3, n=3, max_new_tokens=12, forced_words=["dog", "cafe"], length_penalty=0.0
    )
    for one in (found, *found.alternatives):
        assert "dog" in one.text
        assert "cafe" in one.text
    if found.finish_reason == "length":
        assert found.score == pytest.approx(sum(torch_logprobs(model, found.tokens)), abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"logit_bias": {0: 4.0}}, {"no_repeat_ngram": 2}])
def test_logprobs_of_beams_are_torchs(pair: Pair, options: dict[str, Any]) -> None:
    """Before penalties and bias, as without beams; every token of every result has its entry and
    the likeliest others.
    """
    engine, model = pair
    found = engine.generate(PROMPT, beams=3, n=3, max_new_tokens=9, logprobs=4, **options)
    for one in (found, *found.alternatives):
        assert one.logprobs is not None
        assert [entry.token for entry in one.logprobs] == list(one.tokens)
        np.testing.assert_allclose(
            [entry.logprob for entry in one.logprobs], torch_logprobs(model, one.tokens), atol=1e-4
        )
        for entry in one.logprobs:
            assert len(entry.top) == 4
            assert entry.top[0][1] >= entry.logprob
    assert engine.generate(PROMPT, beams=3, max_new_tokens=9).logprobs is None


def torch_logprobs(model: PreTrainedModel, tokens: Sequence[int]) -> list[float]:
    """Of each generated token behind PROMPT."""
    with torch.no_grad():
        logprobs = torch.log_softmax(model(torch.tensor([[*PROMPT, *tokens]])).logits[0], -1)
    return [float(logprobs[len(PROMPT) - 1 + place, token]) for place, token in enumerate(tokens)]


def test_beams_that_have_nowhere_to_go(pair: Pair) -> None:
    engine, _ = pair
    with pytest.raises(RequestError, match="every token is barred"):
        engine.generate(PROMPT, beams=3, logit_bias=dict.fromkeys(range(384), -np.inf))
    single = engine.generate(
        PROMPT, beams=3, n=3, max_new_tokens=4, logit_bias=dict.fromkeys(range(1, 384), -np.inf)
    )
    assert (single.tokens, single.alternatives) == ((), ())  # the end is all there is, once


def test_beams_with_a_prefix_score_what_torch_says(shared_engine: Engine, llama_base: Path) -> None:
    """The score is the sum of the text's log-probabilities behind the prefix."""
    found = shared_engine.generate(
        PROMPT, task="news", beams=4, max_new_tokens=8, ignore_end=True, length_penalty=0.0
    )
    model, prefix = torch_model(llama_base), make_prefix(shared_engine.manifest, "news", 5)
    with torch.no_grad():
        logits = model(
            torch.tensor([[*PROMPT, *found.tokens]]), past_key_values=torch_cache(model, prefix)
        ).logits[0]
    logprobs = torch.log_softmax(logits, -1)
    total = sum(
        float(logprobs[len(PROMPT) - 1 + place, token]) for place, token in enumerate(found.tokens)
    )
    assert found.score == pytest.approx(total, abs=1e-4)
    greedy = shared_engine.generate(PROMPT, task="news", max_new_tokens=8, ignore_end=True)
    assert len(greedy.tokens) == len(found.tokens) == 8


def test_stop_texts_end_hypotheses(shared_engine: Engine) -> None:
    whole = shared_engine.generate("The quick", beams=3, max_new_tokens=12, ignore_end=True)
    stop = whole.text[4:6]
    # A negative penalty favours short texts, so one that was stopped wins
    found = shared_engine.generate(
        "The quick",
        beams=3,
        n=3,
        max_new_tokens=12,
        ignore_end=True,
        stop=stop,
        length_penalty=-3.0,
    )
    for one in (found, *found.alternatives):
        assert stop not in one.text
    assert found.finish_reason == "stop"
