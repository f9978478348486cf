"""Rows to ids, and what is said about them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import label_rows, record_rows, write_jsonl

from edgeprefix.cli.rows import Row
from edgeprefix.runtime.errors import DataError, TemplateError
from edgeprefix.train import FrozenModel
from edgeprefix.train.batches import Batches, collate, in_length_order, sample
from edgeprefix.train.data import _split, load_data


def test_targets_end_with_the_end_token_and_prompts_do_not(llama: FrozenModel) -> None:
    data = load_data(
        record_rows(4),
        record_rows(2, start=50),
        tokenizer=llama.tokenizer,
        prompt="{input} ->",
        max_tokens=99,
    )
    for example in data.train:
        assert example.target[-1] == 0
        assert 0 not in example.prompt
        assert llama.tokenizer.decode(example.target) == example.text


def test_a_bad_row_names_file_and_line(llama: FrozenModel, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "train.jsonl", record_rows(3))
    path.write_text(path.read_text() + '{"input": "no target here"}\n')
    with pytest.raises(DataError, match=r"train\.jsonl:4: field 'target' is missing"):
        load_data(path, None, tokenizer=llama.tokenizer, prompt="{input}", max_tokens=99)


def test_a_template_field_that_rows_lack_is_named(llama: FrozenModel) -> None:
    with pytest.raises(DataError, match="training row 1 has no 'question'"):
        load_data(
            record_rows(3), None, tokenizer=llama.tokenizer, prompt="{question}", max_tokens=99
        )
    with pytest.raises(TemplateError, match="only plain names"):
        load_data(
            record_rows(3), None, tokenizer=llama.tokenizer, prompt="{input.x}", max_tokens=99
        )


def test_truncation_cuts_the_prompts_beginning_and_is_reported(llama: FrozenModel) -> None:
    whole = load_data(
        record_rows(4),
        record_rows(2, start=9),
        tokenizer=llama.tokenizer,
        prompt="{input}",
        max_tokens=99,
    )
    longest = max(len(example.target) for example in whole.train)
    data = load_data(
        record_rows(4),
        record_rows(2, start=9),
        tokenizer=llama.tokenizer,
        prompt="{input}",
        max_tokens=longest + 1,
    )
    assert data.report.truncated_train == 4
    for short, full in zip(data.train, whole.train, strict=True):
        assert short.target == full.target
        assert short.prompt == full.prompt[-(longest + 1 - len(full.target)) :]
    assert any(
        "4 training and 2 validation rows are too long" in line for line in data.report.warnings()
    )
    with pytest.raises(DataError, match="the target alone has"):
        load_data(record_rows(4), None, tokenizer=llama.tokenizer, prompt="{input}", max_tokens=3)


def test_duplicates_and_leakage_are_reported(llama: FrozenModel) -> None:
    train = [*record_rows(5), *record_rows(2)]
    data = load_data(
        train, record_rows(4, start=3), tokenizer=llama.tokenizer, prompt="{input}", max_tokens=99
    )
    assert data.report.duplicate_rows == 2
    assert data.report.leaked_rows == 2
    warnings = " ".join(data.report.warnings())
    assert "2 of 4 validation prompts also stand in the training data" in warnings
    assert "2 training rows are exact duplicates" in warnings


def test_without_validation_rows_a_tenth_is_set_apart_without_leakage(llama: FrozenModel) -> None:
    # Every prompt twice: both copies must go to the same side
    rows = record_rows(30) + record_rows(30)
    data = load_data(rows, None, tokenizer=llama.tokenizer, prompt="{input}", max_tokens=99, seed=3)
    assert data.report.validation_from_train
    assert data.report.validation_rows == 6
    assert data.report.train_rows == 54
    assert data.report.leaked_rows == 0
    again = load_data(
        rows, None, tokenizer=llama.tokenizer, prompt="{input}", max_tokens=99, seed=3
    )
    assert again.validation == data.validation


@given(
    st.lists(st.integers(1, 60), min_size=2, max_size=25),
    st.integers(0, 3),
)
def test_what_is_set_apart_is_bounded_and_shares_no_prompt(counts: list[int], seed: int) -> None:
    """However rows are spread over prompts: at least one row on each side, no prompt on both, and
    no more than a tenth apart, or one prompt's rows.
    """
    rows = [
        Row(fields={"input": str(prompt), "target": str(row)}, path=Path("rows"), line=1)
        for prompt, count in enumerate(counts)
        for row in range(count)
    ]
    train, apart = _split(rows, "{input}", seed)
    assert sorted(map(id, train + apart)) == sorted(map(id, rows))
    assert not {row["input"] for row in train} & {row["input"] for row in apart}
    prompts = {row["input"] for row in apart}
    assert len(prompts) <= max(1, len(counts) // 10)
    assert len(apart) <= max(1, len(rows) // 10, min(counts))
    assert train
    assert apart


def test_nine_hundred_rows_of_one_prompt_stay_in_training(llama: FrozenModel) -> None:
    rows = [{"input": "same", "target": f"answer {index}"} for index in range(900)]
    rows += record_rows(100)
    for seed in range(4):
        data = load_data(
            rows, None, tokenizer=llama.tokenizer, prompt="{input}", max_tokens=99, seed=seed
        )
        assert data.report.validation_rows == 10
        assert len({example.prompt for example in data.train}) == 91


@pytest.mark.parametrize("source", ["file", "memory"])
def test_empty_targets_are_named_by_line(llama: FrozenModel, tmp_path: Path, source: str) -> None:
    rows = record_rows(5)
    for index in (1, 3):
        rows[index]["target"] = ""
    data = write_jsonl(tmp_path / "train.jsonl", rows) if source == "file" else rows
    place = "train.jsonl" if source == "file" else "<training rows>"
    with pytest.raises(
        DataError, match=rf"{place}:2: the target is empty.*\n.*{place}:4: the target is empty"
    ):
        load_data(data, record_rows(2), tokenizer=llama.tokenizer, prompt="{input}", max_tokens=99)


def test_an_empty_prompt_is_named_by_line(llama: FrozenModel) -> None:
    rows = [*record_rows(2), {"input": "", "target": "x"}]
    with pytest.raises(DataError, match=":3: the prompt is empty"):
        load_data(rows, rows[:1], tokenizer=llama.tokenizer, prompt="{input}", max_tokens=99)


def test_a_target_that_is_no_label_is_named(llama: FrozenModel) -> None:
    rows = [*label_rows(4), {"input": "x", "target": "maybe"}]
    with pytest.raises(
        DataError, match=r"5: target 'maybe' is none of the labels \(yes, no\); 1 such rows"
    ):
        load_data(
            rows,
            None,
            tokenizer=llama.tokenizer,
            prompt="{input}",
            labels=["yes", "no"],
            max_tokens=99,
        )


@given(count=st.integers(1, 70), size=st.integers(1, 20), seed=st.integers(0, 3))
def test_every_epoch_holds_every_row_and_a_step_is_a_pure_function(
    count: int, size: int, seed: int
) -> None:
    examples = _examples(count)
    batches = Batches(examples, batch_size=size, seed=seed)
    for epoch in range(2):
        steps = range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch)
        assert {index for step in steps for index in batches.indices(step)} == set(range(count))
    assert Batches(examples, batch_size=size, seed=seed).indices(
        batches.per_epoch
    ) == batches.indices(batches.per_epoch)


def test_collate_marks_the_positions_before_each_target_token() -> None:
    short, long = _examples(2)[:2]
    batch = collate([long, short])
    assert batch.ids.shape == (2, long.length - 1)
    flat = batch.ids.flatten()
    for row, target, owner in zip(
        batch.rows.tolist(), batch.targets.tolist(), batch.owner.tolist(), strict=True
    ):
        example = (long, short)[owner]
        text = [*example.prompt, *example.target]
        place = row - owner * batch.ids.shape[1]
        assert flat[row] == text[place]
        assert target == text[place + 1]


def test_evaluation_sees_all_rows_and_samples_are_seeded() -> None:
    examples = _examples(23)
    assert sum(len(group) for group in in_length_order(examples, 5)) == 23
    assert sample(examples, 7, 1) == sample(examples, 7, 1)
    assert len(sample(examples, 7, 1)) == 7
    assert sample(examples, 99, 1) == list(examples)


def _examples(count: int) -> list:  # type: ignore[type-arg]
    from edgeprefix.train.data import Example

    return [
        Example(
            prompt=tuple(range(2, 4 + index % 7)),
            target=tuple(range(9, 11 + index % 5)),
            text=str(index),
        )
        for index in range(count)
    ]
