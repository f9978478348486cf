"""Scores, log-probabilities and perplexity against torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from bundles import make_prefix, torch_logits, torch_model

from edgeprefix.runtime import Engine, Prefix, Request, Scores, TaskPack
from edgeprefix.runtime.errors import PromptTooLongError, RequestError

LABELS = ("yes", "no", "not now", "now", "yes please")
TEXT = "I cannot log in to my account"
TOLERANCE = 1e-4  # sums of up to ten log-probabilities in fp32


@pytest.fixture(scope="module")
def task(bundle: Path) -> Iterator[tuple[Engine, Prefix]]:
    with Engine.load(bundle, max_batch=2, max_length=96, threads=1, chunk_tokens=5) as engine:
        pack = TaskPack(prompt="Text: {input}\nAnswer:", labels=LABELS)
        prefix = make_prefix(engine.manifest, "intent", 6, pack=pack)
        engine.load_prefix(prefix)
        yield engine, prefix


def torch_scores(
    base: Path, engine: Engine, prefix: Prefix | None, prompt: str, *, end: bool = True
) -> list[float]:
    """Each option computed alone, from the whole text."""
    return torch_sums(base, engine, prefix, engine.tokenizer.encode_prompt(prompt), LABELS, end=end)


def torch_sums(
    base: Path,
    engine: Engine,
    prefix: Prefix | None,
    context: list[int],
    options: Sequence[str],
    *,
    end: bool,
) -> list[float]:
    model, sums = torch_model(base), []
    for label in options:
        option = (
            engine.tokenizer.encode_target(label) if end else engine.tokenizer.encode_piece(label)
        )
        logits = torch_logits(model, prefix, context + option).astype(np.float64)
        logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        sums.append(
            sum(logprobs[len(context) - 1 + place, token] for place, token in enumerate(option))
        )
    return sums


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize(
    "options",
    [[], ["a", "b", "c", "d", "e"], ["a", "b", "cd", "ce", "the dog is"], ["a"], ["a", "a"]],
)
def test_short_options_go_through_the_batch(
    base: Path, task: tuple[Engine, Prefix], end: bool, options: list[str]
) -> None:
    """More of them than slots, of different lengths, equal ones too; beside a text that is being
    generated.
    """
    engine, prefix = task
    options = options or list("abcdefghijklmnopqrstuvwxyz")
    running = engine.submit(Request("x", task="intent", max_new_tokens=60, ignore_end=True))
    beside = engine.score(TEXT, options, task="intent", include_end=end)
    running.cancel()
    context = engine.tokenizer.encode_prompt(f"Text: {TEXT}\nAnswer:")
    np.testing.assert_allclose(
        beside, torch_sums(base, engine, prefix, context, options, end=end), atol=TOLERANCE
    )
    # To the last bit in fp32
    assert list(engine.score(TEXT, options, task="intent", include_end=end)) == list(beside)


def test_many_prompts_share_the_batch(task: tuple[Engine, Prefix]) -> None:
    engine, _ = task
    texts = [f"{TEXT} {number}" for number in range(30)]
    settings = {"task": "intent", "calibrate": True, "normalise": True}
    alone = [(index, engine.score(text, **settings)) for index, text in enumerate(texts)]  # type: ignore[arg-type]
    assert list(engine.score_each(texts, **settings)) == alone  # type: ignore[arg-type]
    taken: list[str] = []
    some = engine.score_each((taken.append(text) or text for text in texts), task="intent")  # type: ignore[func-returns-value]
    assert next(some)[0] == 0
    some.close()
    assert len(taken) < 15  # as they can be served, not all at once
    with pytest.raises(RequestError, match="the prompt is empty"):
        list(engine.score_each([[5], []], ["yes", "no"]))


@pytest.mark.parametrize("end", [True, False])
def test_option_scores_equal_torch(base: Path, task: tuple[Engine, Prefix], end: bool) -> None:
    engine, prefix = task
    scores = engine.score(TEXT, task="intent", include_end=end)
    assert scores.options == LABELS
    np.testing.assert_allclose(
        scores,
        torch_scores(base, engine, prefix, f"Text: {TEXT}\nAnswer:", end=end),
        atol=TOLERANCE,
    )
    bare = engine.score(TEXT, LABELS, include_end=end)
    np.testing.assert_allclose(
        bare, torch_scores(base, engine, None, TEXT, end=end), atol=TOLERANCE
    )


def test_calibrated_and_normalised(base: Path, task: tuple[Engine, Prefix]) -> None:
    engine, prefix = task
    plain = np.asarray(engine.score(TEXT, task="intent"))
    free = np.asarray(torch_scores(base, engine, prefix, "Text: N/A\nAnswer:"))
    lengths = [len(engine.tokenizer.encode_target(label)) for label in LABELS]
    for _ in range(2):  # the second time from memory
        np.testing.assert_allclose(
            engine.score(TEXT, task="intent", calibrate=True), plain - free, atol=TOLERANCE
        )
    np.testing.assert_allclose(
        engine.score(TEXT, task="intent", normalise=True), plain / lengths, atol=TOLERANCE
    )


def test_calibration_follows_a_replaced_task(task: tuple[Engine, Prefix]) -> None:
    engine, prefix = task
    before = engine.score(TEXT, task="intent", calibrate=True)
    engine.load_prefix(make_prefix(engine.manifest, "intent", 6, pack=prefix.pack, seed=77))
    after = engine.score(TEXT, task="intent", calibrate=True)
    engine.load_prefix(prefix)
    assert list(before) != list(after)
    assert list(engine.score(TEXT, task="intent", calibrate=True)) == list(before)


def test_logprobs_and_perplexity_equal_torch(base: Path, task: tuple[Engine, Prefix]) -> None:
    engine, prefix = task
    ids = engine.tokenizer.encode_prompt(TEXT)
    for name, loaded in (("intent", prefix), (None, None)):
        found = engine.logprobs(ids, task=name)
        logits = torch_logits(torch_model(base), loaded, ids).astype(np.float64)
        logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        expected = [logprobs[place, token] for place, token in enumerate(ids[1:])]
        np.testing.assert_allclose(found.logprobs, expected, atol=TOLERANCE)
        assert engine.perplexity(ids, task=name) == pytest.approx(
            math.exp(-np.mean(expected)), rel=TOLERANCE
        )
    assert math.isnan(engine.perplexity(ids[:1]))


def test_scores_are_a_sequence_with_names() -> None:
    scores = Scores(("a", "b"), (-1.0, -3.0))
    assert list(scores) == [-1.0, -3.0]
    assert (len(scores), scores[1], scores.best, scores.by_option) == (
        2,
        -3.0,
        "a",
        {"a": -1.0, "b": -3.0},
    )
    assert sum(scores.probabilities.values()) == pytest.approx(1)


def test_what_cannot_be_scored(task: tuple[Engine, Prefix]) -> None:
    engine, _ = task
    with pytest.raises(
        RequestError,
        match="no options to score: give some, or use a task whose task pack has labels",
    ):
        engine.score(TEXT)
    with pytest.raises(RequestError, match="expected several texts, got one"):
        engine.score(TEXT, "yes")
    with pytest.raises(RequestError, match="option 5 is no text"):
        engine.score(TEXT, ["yes", 5])  # type: ignore[list-item]
    with pytest.raises(RequestError, match="option '' has no tokens"):
        engine.score(TEXT, ["yes", ""], include_end=False)
    with pytest.raises(RequestError, match="calibration needs a prompt of text or fields"):
        engine.score([5, 6], LABELS, calibrate=True)
    with pytest.raises(
        PromptTooLongError,
        match="the prompt with its longest option has 100 tokens, room is for 96",
    ):
        engine.score([5] * 97, ["now"])
    with pytest.raises(PromptTooLongError, match="the text has 97 tokens"):
        engine.logprobs([5] * 97)
    assert engine.score(TEXT, ["yes", "no"]).best in ("yes", "no")
