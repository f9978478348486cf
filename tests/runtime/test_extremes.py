"""Options at the ends of the numbers: refused by name, or what they promise; never a wrong token, a
raw exception or a NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeprefix.runtime import Engine
from edgeprefix.runtime.errors import RequestError
from edgeprefix.runtime.generation.options import GenerationOptions
from edgeprefix.runtime.generation.sampler import Sampler, Vocabulary

SIZE = 12
PROMPT, TOKENS = [1, 2], [3, 3, 4]
UNLIKELY = 110  # e to minus this is 0 in fp32

BIAS = st.one_of(st.floats(), st.sampled_from([1e39, -1e39, 1e30, -1e30, 1e29]))
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.one_of(
            st.floats(0, allow_nan=False), st.sampled_from([1e-320, 1e-46, 1e-40, 1e-5, 1e39])
        ),
        "logit_bias": st.dictionaries(st.integers(0, SIZE - 1), BIAS, max_size=4),
        "repetition_penalty": st.floats(0),
        "presence_penalty": BIAS,
        "frequency_penalty": BIAS,
        "top_k": st.integers(0, 20),
        "top_p": st.floats(0, 1),
        "min_p": st.floats(0, 1),
        "typical_p": st.floats(0, 1),
    },
)


def exact(options: GenerationOptions, logits: np.ndarray) -> np.ndarray:
    """The edited logits [V] in fp64."""
    scores = logits.astype(np.float64)
    for token, bias in options.logit_bias.items():
        scores[token] += bias
    for token in {*PROMPT, *TOKENS}:
        by = options.repetition_penalty
        scores[token] = scores[token] * by if scores[token] < 0 else scores[token] / by
    for token in set(TOKENS):
        scores[token] -= options.presence_penalty
        scores[token] -= options.frequency_penalty * TOKENS.count(token)
    return scores


@given(chosen=OPTIONS, seed=st.integers(0, 99))
@example(chosen={"logit_bias": {5: 1e39}, "temperature": 1.0}, seed=0)
@example(chosen={"logit_bias": {5: 1e30, 3: 1e30}, "temperature": 0.5}, seed=0)
@example(chosen={"temperature": 1e-40}, seed=0)
@example(chosen={"temperature": 1e-40, "typical_p": 0.5}, seed=0)
@settings(max_examples=400, deadline=None)
def test_no_number_makes_a_token_that_could_not_come(chosen: dict[str, Any], seed: int) -> None:
    logits = (np.random.default_rng(seed).standard_normal(SIZE) * 3).astype(np.float32)
    try:
        options = GenerationOptions(seed=seed, **chosen)
    except RequestError:
        return
    sampler = Sampler(options, Vocabulary(size=SIZE), PROMPT)
    scores = exact(options, logits)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        token = sampler(logits, TOKENS, 9)
    behind = scores.max() - scores[token]
    rounding = 1e-6 * max(1, np.abs(scores[np.isfinite(scores)]).max())
    assert behind <= rounding + UNLIKELY * options.effective_temperature


@given(
    temperature=st.sampled_from([5e-324, 1e-320, 1e-46, 1e-45, 1e-40, 1e-38, 1e-12]),
    narrow=st.sampled_from([{}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}, {"typical_p": 0.9}]),
    seed=st.integers(0, 50),
)
@settings(max_examples=100, deadline=None)
def test_next_to_no_temperature_is_the_likeliest(
    temperature: float, narrow: dict[str, Any], seed: int
) -> None:
    logits = np.random.default_rng(seed).standard_normal(SIZE).astype(np.float32)
    options = GenerationOptions(temperature=temperature, seed=seed, **narrow)
    assert Sampler(options, Vocabulary(size=SIZE), PROMPT)(logits, [], 9) == logits.argmax()


def test_an_endless_temperature_makes_all_tokens_alike() -> None:
    logits = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)
    found = {
        Sampler(GenerationOptions(temperature=1e300, seed=seed), Vocabulary(size=SIZE), PROMPT)(
            logits, [], 9
        )
        for seed in range(200)
    }
    assert found == set(range(SIZE))


@pytest.mark.parametrize(
    "wrong",
    [
        {"logit_bias": {5: 1e39}, "temperature": 1.0},
        {"beams": 2, "length_penalty": 1000.0},
        {"beams": 2, "length_penalty": -1000.0},
        {"repetition_penalty": 1e-40},
        {"frequency_penalty": -1e39},
    ],
)
def test_the_engine_refuses_what_no_arithmetic_survives(
    shared_engine: Engine, wrong: dict[str, Any]
) -> None:
    with pytest.raises(RequestError, match="expected .* between"):
        shared_engine.generate("x", max_new_tokens=3, **wrong)


@pytest.mark.parametrize("length_penalty", [-50.0, 50.0])
def test_beams_are_ranked_at_the_ends_of_the_length_penalty(
    shared_engine: Engine, length_penalty: float
) -> None:
    """Texts of several lengths: the shortest wins at one end, the longest at the other."""
    found = shared_engine.generate(
        "The quick", beams=4, n=4, max_new_tokens=9, logit_bias={0: 4.0},
        length_penalty=length_penalty, early_stopping="never",
    )  # fmt: skip
    ranked = [found, *found.alternatives]
    scores = [one.score for one in ranked]
    assert np.isfinite(scores).all()
    assert scores == sorted(scores, reverse=True)
    lengths = [len(one.tokens) + (one.finish_reason == "stop") for one in ranked]  # with its end
    assert lengths == sorted(lengths, reverse=length_penalty > 0)
    assert (lengths[0] == 9) == (length_penalty > 0)


def test_a_bias_that_all_tokens_share_changes_no_beams(shared_engine: Engine) -> None:
    """However far down it pushes them, a beam is not taken for an empty place of the batch."""
    plain = shared_engine.generate("The quick", beams=3, n=3, max_new_tokens=5)
    shifted = shared_engine.generate(
        "The quick", beams=3, n=3, max_new_tokens=5, logit_bias=dict.fromkeys(range(384), -1e10)
    )
    assert len(shifted.alternatives) == len(plain.alternatives) == 2
