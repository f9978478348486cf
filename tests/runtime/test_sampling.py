"""Each sampling function against transformers' own logits processor, over random and awkward
logits; the sampler that is made of them is in test_sampler.py.
"""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as reference

from edgeprefix.runtime.contracts.task_pack import GenerationDefaults, TaskPack
from edgeprefix.runtime.errors import NumericalError, RequestError
from edgeprefix.runtime.generation import sampling
from edgeprefix.runtime.generation.options import GenerationOptions, resolve_options
from edgeprefix.runtime.generation.sampler import Sampler, Vocabulary

SIZES = (5, 64, 1000, 5000)


def logits_of(size: int, seed: int, *, barred: bool = False) -> np.ndarray:
    random = np.random.default_rng(seed)
    logits = (random.standard_normal(size) * 3).astype(np.float32)
    if barred:
        logits[random.integers(0, size, size // 3)] = -np.inf
    return logits


def kept_by(processor: reference.LogitsProcessor, logits: np.ndarray) -> set[int]:
    scores = processor(torch.zeros((1, 0), dtype=torch.long), torch.tensor(logits[None].copy()))
    return set(torch.nonzero(scores[0] > -torch.inf).flatten().tolist())


def processed(
    processor: reference.LogitsProcessor, tokens: list[int], logits: np.ndarray
) -> np.ndarray:
    return np.asarray(
        processor(torch.tensor([tokens], dtype=torch.long), torch.tensor(logits[None].copy()))[0]
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("barred", [False, True])
class TestFilters:
    @pytest.mark.parametrize("k", [1, 3, 40, 10_000])
    def test_top_k(self, size: int, seed: int, barred: bool, k: int) -> None:
        logits = logits_of(size, seed, barred=barred)
        kept = sampling.keep_top_k(sampling.everything(logits), k)
        assert set(kept.ids.tolist()) == kept_by(reference.TopKLogitsWarper(k), logits)

    @pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 0.999])
    def test_top_p(self, size: int, seed: int, barred: bool, p: float) -> None:
        logits = logits_of(size, seed, barred=barred)
        kept = sampling.keep_top_p(sampling.everything(logits), p)
        assert set(kept.ids.tolist()) == kept_by(reference.TopPLogitsWarper(p), logits)

    @pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 1.0])
    def test_min_p(self, size: int, seed: int, barred: bool, p: float) -> None:
        logits = logits_of(size, seed, barred=barred)
        kept = sampling.keep_min_p(sampling.everything(logits), p)
        assert set(kept.ids.tolist()) == kept_by(reference.MinPLogitsWarper(p), logits)

    @pytest.mark.parametrize("p", [0.05, 0.5, 0.95])
    def test_typical(self, size: int, seed: int, barred: bool, p: float) -> None:
        logits = logits_of(size, seed, barred=barred)
        kept = sampling.keep_typical(sampling.everything(logits), p)
        assert set(kept.ids.tolist()) == kept_by(reference.TypicalLogitsWarper(p), logits)


@pytest.mark.parametrize("penalty", [0.5, 1.3, 4.0])
def test_repetition_penalty(penalty: float) -> None:
    logits, tokens = logits_of(64, 1), [3, 3, 9, 60, 0]
    expected = processed(reference.RepetitionPenaltyLogitsProcessor(penalty), tokens, logits)
    sampling.penalize_repetition(logits, np.unique(np.asarray(tokens)), penalty)
    np.testing.assert_allclose(logits, expected, rtol=1e-6)


def test_presence_and_frequency_penalty_follow_openais_formula() -> None:
    logits, tokens = logits_of(10, 1), [3, 3, 9]
    expected = logits.copy()
    expected[3] -= 0.5 + 2 * 0.25
    expected[9] -= 0.5 + 1 * 0.25
    sampling.penalize_presence_and_frequency(logits, tokens, 0.5, 0.25)
    np.testing.assert_allclose(logits, expected, rtol=1e-6)


@given(tokens=st.lists(st.integers(0, 4), min_size=1, max_size=40), size=st.integers(1, 5))
@settings(max_examples=300, deadline=None)
def test_no_repeat_ngram(tokens: list[int], size: int) -> None:
    expected = processed(
        reference.NoRepeatNGramLogitsProcessor(size), tokens, np.zeros(5, np.float32)
    )
    assert set(sampling.repeated_ngram_tokens(tokens, size)) == set(
        np.flatnonzero(np.isinf(expected)).tolist()
    )


@given(
    tokens=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    banned=st.lists(
        st.lists(st.integers(0, 4), min_size=1, max_size=4), min_size=1, max_size=4, unique_by=tuple
    ),
)
@settings(max_examples=300, deadline=None)
def test_banned_sequences(tokens: list[int], banned: list[list[int]]) -> None:
    processor = reference.NoBadWordsLogitsProcessor(banned, eos_token_id=None)
    expected = processed(processor, tokens, np.zeros(5, np.float32))
    assert set(sampling.banned_sequence_tokens(tokens, banned)) == set(
        np.flatnonzero(np.isinf(expected)).tolist()
    )


def test_logit_bias_and_min_new_tokens() -> None:
    logits = logits_of(64, 2)
    options = GenerationOptions(logit_bias={5: 2.5, 7: -np.inf}, min_new_tokens=3)
    sampler = Sampler(options, Vocabulary(size=64, end_ids=(0, 1)), [4])
    bias = reference.SequenceBiasLogitsProcessor([[[5], 2.5], [[7], -np.inf]])
    end = reference.MinNewTokensLengthLogitsProcessor(1, 3, eos_token_id=[0, 1])
    expected = processed(end, [4, 8, 8], processed(bias, [4, 8, 8], logits))
    np.testing.assert_allclose(sampler.edit(logits, [8, 8]), expected)
    assert sampler.edit(logits, [8, 8, 8])[0] == logits[0]


def test_sampled_tokens_have_the_right_frequencies() -> None:
    logits = np.log(np.asarray([0.5, 0.3, 0.15, 0.05], np.float32))
    sampler = Sampler(GenerationOptions(temperature=1.0, seed=3), Vocabulary(size=4), [0])
    counts = np.bincount([sampler(logits, [], 10) for _ in range(20_000)], minlength=4)
    # About 3.5 standard deviations
    np.testing.assert_allclose(counts / 20_000, [0.5, 0.3, 0.15, 0.05], atol=0.012)


def test_one_seed_one_result_and_samples_differ() -> None:
    logits = logits_of(1000, 0)
    draw = lambda seed, offset=0: [  # noqa: E731
        sampler(logits, [], 9)
        for sampler in [
            Sampler(
                GenerationOptions(temperature=1.0, seed=seed),
                Vocabulary(size=1000),
                [0],
                seed_offset=offset,
            )
        ]
        for _ in range(8)
    ]
    assert draw(5) == draw(5)
    assert draw(5) != draw(6)
    assert draw(5) != draw(5, 1)


def test_plain_greedy_is_the_likeliest_and_leaves_logits_alone() -> None:
    logits = logits_of(50, 3)
    before = logits.copy()
    sampler = Sampler(GenerationOptions(), Vocabulary(size=50), [0])
    assert sampler.plain
    assert sampler(logits, [], 5) == int(logits.argmax())
    Sampler(
        GenerationOptions(temperature=0.5, top_k=4, repetition_penalty=2.0),
        Vocabulary(size=50),
        [0],
    )(logits, [3], 5)
    assert np.array_equal(logits, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_noticed(bad: float) -> None:
    logits = logits_of(50, 3)
    logits[17] = bad
    for options in (GenerationOptions(), GenerationOptions(temperature=1.0)):
        with pytest.raises(
            NumericalError, match="the base gave (nan|inf) as a logit after 2 tokens"
        ):
            Sampler(options, Vocabulary(size=50), [0])(logits, [1, 2], 5)


def test_when_every_token_is_barred() -> None:
    sampler = Sampler(
        GenerationOptions(logit_bias=dict.fromkeys(range(4), -np.inf)), Vocabulary(size=4), [0]
    )
    with pytest.raises(RequestError, match="every token is barred; loosen logit_bias"):
        sampler(np.zeros(4, np.float32), [], 5)


def test_forced_beginning_and_forced_words() -> None:
    words = Vocabulary(size=9, end_ids=(0,), beginning=(5, 6), forced=(((3, 4), (3, 2)), ((8,),)))
    sampler = Sampler(GenerationOptions(), words, [1])
    # Wants to end at once, then token 7
    logits = np.asarray([9, 1, 0, 0, 0, 0, 0, 5, 0], np.float32)
    tokens: list[int] = []
    while len(tokens) < 8:
        tokens.append(sampler(logits, tokens, 8 - len(tokens)))
    assert tokens == [5, 6, 7, 7, 7, 3, 4, 8]
    assert sampler(logits, [5, 6, 3, 2, 8], 3) == 0  # all there, in another spelling: it may end


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=60),
    st.floats(0, 1, exclude_max=True),
    st.floats(0.01, 1),
)
@settings(max_examples=300, deadline=None)
def test_filters_never_leave_nothing(values: list[float], uniform: float, mass: float) -> None:
    logits = np.asarray(values, np.float32)
    for left in (
        sampling.keep_top_p(sampling.everything(logits), mass),
        sampling.keep_min_p(sampling.everything(logits), mass),
        sampling.keep_typical(sampling.everything(logits), mass),
        sampling.keep_top_k(sampling.everything(logits), max(1, int(mass * 10))),
    ):
        assert len(left.ids)
        assert sampling.draw(left, uniform) in left.ids


def test_top_entries_are_sorted_with_ties_by_index() -> None:
    assert sampling.top_entries(np.asarray([1, 3, 2, 3], np.float32), 3) == [
        (1, 3.0),
        (3, 3.0),
        (2, 2.0),
    ]
    assert sampling.top_entries(np.asarray([1.0], np.float32), 0) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -1}, "temperature=-1: expected a number, at least 0"),
        ({"top_p": 0.0}, "top_p=0.0: expected a number, above 0 and at most 1"),
        ({"top_k": 2.5}, "top_k=2.5: expected a whole number, at least 0"),
        ({"max_new_tokens": 0}, "max_new_tokens=0: expected a whole number, at least 1"),
        ({"n": True}, "n=True: expected a whole number, at least 1"),
        (
            {"min_new_tokens": 9, "max_new_tokens": 3},
            "min_new_tokens=9 is more than max_new_tokens=3",
        ),
        ({"n": 3, "temperature": 0}, "n=3 greedy samples would be equal"),
        ({"beams": 2, "temperature": 0.5}, "beam search is not sampled"),
        ({"beams": 2, "n": 3}, "need at least as many beams"),
        (
            {"beams": 2, "top_k": 5, "typical_p": 0.5},
            "is not sampled; leave top_k, typical_p out or beams=2",
        ),
        ({"beams": 2, "lookup": 3}, "lookup works with greedy decoding only"),
        ({"early_stopping": True}, "early_stopping is for beam search"),
        (
            {"beams": 2, "early_stopping": "soon"},
            "early_stopping='soon': expected one of False, True, never",
        ),
        ({"stop": 5}, "stop=5: expected a text or several"),
        ({"banned_words": ["a"], "forced_words": ["a", "b"]}, "'a' cannot be forced and banned"),
        ({"logit_bias": {"a": 1.0}}, "logit_bias={.*}: expected numbers or -inf by token id"),
        ({"logit_bias": [1]}, r"logit_bias=\[1\]: expected numbers or -inf by token id"),
        ({"forced_prefix": 5}, "forced_prefix=5: expected a text"),
        ({"ignore_end": "no"}, "ignore_end='no': expected True or False"),
        ({"lookup": 4, "top_k": 5}, "lookup works with greedy decoding only"),
        ({"stop": ("",)}, "stop=.*: expected a text or several, none empty"),
        ({"logit_bias": {1: float("nan")}}, "logit_bias={.*}: expected numbers or -inf"),
        ({"temprature": 1}, "option 'temprature' is unknown; did you mean temperature"),
        (
            {"top_p": 3.0, "seed": -1},
            "top_p=3.0: expected .*; seed=-1: expected a whole number, at least 0",
        ),
    ],
)
def test_options_that_make_no_sense(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        resolve_options(None, wrong)


def test_logit_bias_out_of_range() -> None:
    with pytest.raises(RequestError, match=r"logit_bias names token 9, the vocabulary has 0 … 3"):
        Sampler(GenerationOptions(logit_bias={9: 1.0}), Vocabulary(size=4), [0])


def test_task_defaults_are_overridden_by_the_caller() -> None:
    pack = TaskPack(
        stop=("\n",), generation=GenerationDefaults(temperature=0.7, top_k=20, max_new_tokens=9)
    )
    resolved = resolve_options(pack, {})
    assert (resolved.temperature, resolved.top_k, resolved.stop, resolved.max_new_tokens) == (
        0.7,
        20,
        ("\n",),
        None,
    )
    overridden = resolve_options(pack, {"temperature": 0.0, "stop": "END"})
    assert (overridden.effective_temperature, overridden.stop) == (0.0, ("END",))


def test_a_tasks_wish_to_sample_does_not_stand_in_the_way_of_beams() -> None:
    pack = TaskPack(
        generation=GenerationDefaults(temperature=0.7, top_k=20, repetition_penalty=1.2)
    )
    resolved = resolve_options(pack, {"beams": 3})
    assert (resolved.sampled, resolved.top_k, resolved.repetition_penalty) == (False, 0, 1.2)
    with pytest.raises(RequestError, match="leave top_k out"):
        resolve_options(pack, {"beams": 3, "top_k": 20})


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 200),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.one_of(st.integers(-2, 9), st.text(max_size=2)), max_size=3),
    st.dictionaries(
        st.one_of(st.integers(-2, 500), st.text(max_size=2)),
        st.one_of(st.floats(), st.text()),
        max_size=3,
    ),
)


@given(
    values=st.dictionaries(
        st.sampled_from([field.name for field in dataclasses.fields(GenerationOptions)]), JUNK
    )
)
@settings(max_examples=1000, deadline=None)
def test_whatever_is_given_either_makes_sense_or_is_a_request_error(
    values: dict[str, object],
) -> None:
    with contextlib.suppress(RequestError):  # any other error fails the test
        options = resolve_options(None, values)
        assert options.beams == 1 or not options.sampled


def test_temperature_follows_from_what_is_asked() -> None:
    assert GenerationOptions().effective_temperature == 0
    assert GenerationOptions(top_p=0.9).effective_temperature == 1
    assert GenerationOptions(n=2).effective_temperature == 1
    assert GenerationOptions(top_p=0.9, temperature=0).effective_temperature == 0
    assert GenerationOptions(seed=1).effective_temperature == 0
