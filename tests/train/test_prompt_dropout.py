"""Prompts lose tokens between what all of them begin and end with, by the seed and the step alone;
targets stay whole.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import label_rows

from edgeprefix.runtime.errors import TrainingError
from edgeprefix.train import FrozenModel, TrainConfig
from edgeprefix.train.batches import Batches
from edgeprefix.train.data import Example, load_data
from edgeprefix.train.prompt_dropout import PromptDropout

tokens = st.lists(st.integers(2, 9), max_size=12)
prompts = st.lists(tokens, min_size=1, max_size=6)


def example(*prompt: int) -> Example:
    return Example(prompt=prompt, target=(1, 0), text="yes")


def is_subsequence(part: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    rest = iter(whole)
    return all(token in rest for token in part)


@given(tokens, prompts, tokens, st.floats(0, 0.99), st.integers(0, 99))
def test_the_template_stays_and_the_text_keeps_its_order(
    head: list[int], texts: list[list[int]], tail: list[int], share: float, seed: int
) -> None:
    rows = [example(*head, *text, *tail, 10) for text in texts]
    dropout = PromptDropout.over(rows, share)
    for row in rows:
        shortened = dropout.shortened(row, random.Random(seed))
        assert shortened.prompt[: len(head)] == tuple(head)
        assert shortened.prompt[-len(tail) - 1 :] == (*tail, 10)
        assert is_subsequence(shortened.prompt, row.prompt)
        assert (shortened.target, shortened.text) == (row.target, row.text)


def test_as_many_tokens_are_left_out_as_was_said() -> None:
    rows = [example(2, *range(100, 1100), 3), example(2, *range(2000, 3000), 3)]
    dropout = PromptDropout.over(rows, 0.2)
    assert (dropout.head, dropout.tail) == (1, 1)
    assert len(dropout.shortened(rows[0], random.Random(0)).prompt) == pytest.approx(802, abs=50)


def test_what_is_left_out_follows_from_seed_and_step() -> None:
    rows = [example(*range(10 * row, 10 * row + 9)) for row in range(8)]

    def read(seed: int, step: int, share: float = 0.5) -> list[Example]:
        return Batches(rows, batch_size=8, seed=seed, prompt_dropout=share).examples(step)

    assert read(0, 3) == read(0, 3)
    assert (
        len(
            {
                tuple(sorted(row.prompt for row in read(seed, step)))
                for seed in (0, 1)
                for step in (0, 1)
            }
        )
        == 4
    )
    assert sorted(row.prompt for row in read(0, 3, share=0.0)) == sorted(row.prompt for row in rows)


def test_a_teacher_wants_whole_prompts(llama: FrozenModel) -> None:
    from edgeprefix.train import PrefixConfig
    from edgeprefix.train.defaults import plan

    rows = label_rows(8)
    data = load_data(rows, rows[:2], tokenizer=llama.tokenizer, prompt="{input} ->", max_tokens=200)
    with pytest.raises(TrainingError, match="leave prompt_dropout out"):
        plan(
            PrefixConfig(),
            TrainConfig(prompt_dropout=0.1),
            data,
            length=4,
            max_tokens=200,
            labels=(),
            distilled=True,
        )
