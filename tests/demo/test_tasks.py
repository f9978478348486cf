"""The generators: disjoint parts, one seed → one set of rows, English that reads well, answers that
the input decides.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random

import pytest

from edgeprefix.cli.rows import read_rows
from edgeprefix.demo.pretraining.synthetic import Materials, documents
from edgeprefix.demo.tasks import (
    PARTS,
    POLITE,
    TASKS,
    TRAILS,
    TRIAGE,
    DemoRow,
    DemoTask,
    Sizes,
    make_rows,
    write_rows,
)
from edgeprefix.demo.tasks.task import cut, draw_until, part_of
from edgeprefix.demo.tasks.words import article, made_up
from edgeprefix.runtime.contracts.prompt import render_prompt

SIZES = Sizes(train=400, validation=60, test=100)
each_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


@each_task
def test_parts_share_no_input_and_no_entity(task: DemoTask) -> None:
    rows = make_rows(task, SIZES, seed=3)
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        for facts in (lambda row: {row.input}, lambda row: set(row.entities)):
            shared = set().union(*map(facts, rows[first])) & set().union(*map(facts, rows[second]))
            assert not shared, f"{first} and {second} share {sorted(shared)[:3]}"


@each_task
def test_the_cut_holds_between_seeds(task: DemoTask) -> None:
    trained = {entity for row in make_rows(task, SIZES, seed=0)["train"] for entity in row.entities}
    tested = {entity for row in make_rows(task, SIZES, seed=1)["test"] for entity in row.entities}
    assert not trained & tested


@each_task
def test_rows_are_as_many_as_asked_and_all_different(task: DemoTask) -> None:
    rows = make_rows(task, SIZES, seed=0)
    for part in PARTS:
        assert len({row.input for row in rows[part]}) == len(rows[part]) == getattr(SIZES, part)


@each_task
def test_one_seed_gives_one_set_of_rows(task: DemoTask) -> None:
    assert make_rows(task, SIZES, seed=5) == make_rows(task, SIZES, seed=5)
    assert make_rows(task, SIZES, seed=5)["train"] != make_rows(task, SIZES, seed=6)["train"]


@each_task
def test_there_is_enough_variety_for_the_demo(task: DemoTask) -> None:
    rows = make_rows(task, Sizes(train=4000, validation=200, test=200), seed=0)
    assert len(rows["train"]) == 4000


@each_task
def test_rows_are_written_so_that_the_library_reads_them(task: DemoTask, tmp_path: Path) -> None:
    rows = make_rows(task, Sizes(train=20, validation=5, test=5), seed=0)["train"]
    write_rows(tmp_path / "rows.jsonl", rows)
    read = read_rows(tmp_path / "rows.jsonl")
    assert [(row["input"], row["target"]) for row in read] == [
        (row.input, row.references[0]) for row in rows
    ]
    assert render_prompt(task.prompt, read[0].fields) == task.prompt.replace(
        "{input}", rows[0].input
    )
    first = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])
    assert first.get("references", [first["target"]]) == list(rows[0].references)


def test_too_little_variety_is_said() -> None:
    def same(rng: Random, part: str) -> DemoRow:
        return DemoRow(input="always this", references=("that",), entities=())

    task = DemoTask(name="dull", title="dull", metric="bleu", draw=same)
    with pytest.raises(ValueError, match="dull gives only 1 different train rows, asked for 2"):
        make_rows(task, Sizes(train=2, validation=1, test=1), seed=0)


def test_every_entity_has_exactly_one_part() -> None:
    entities = [f"entity {number}" for number in range(1000)]
    shares = [cut(entities, part) for part in PARTS]
    assert sorted(entity for share in shares for entity in share) == sorted(entities)
    assert [len(share) for share in shares] == [700, 100, 200]
    drawn = {draw_until(made_up, Random(seed), "test") for seed in range(200)}
    assert {part_of(name) for name in drawn} == {"test"}


def test_a_source_without_the_part_is_said() -> None:
    stuck = next(name for name in map(str, range(100)) if part_of(name) == "train")
    with pytest.raises(ValueError, match="no entity of the test part in 1000 tries"):
        draw_until(lambda rng: stuck, Random(0), "test")


def _texts(task: DemoTask) -> list[str]:
    return [
        text
        for rows in make_rows(task, SIZES, seed=1).values()
        for row in rows
        for text in (row.input, *row.references)
    ]


@each_task
def test_no_template_is_left_unfilled(task: DemoTask) -> None:
    for text in _texts(task):
        assert not re.search(r"[{}()]|\w\|\w|  |^\s|\s$| [.,?!]", text), text


@pytest.mark.parametrize("task", [TRAILS, POLITE], ids=lambda task: task.name)
def test_sentences_begin_with_a_capital_and_end_with_a_mark(task: DemoTask) -> None:
    for rows in make_rows(task, SIZES, seed=2).values():
        for row in rows:
            for text in row.references:
                assert text[0].isupper(), text
                assert text[-1] in ".?!", text
                assert not re.search(r"\b(\w+) \1\b", text), f"a doubled word: {text}"
                assert not re.search(r"\ba [aeiou]|\ban [^aeiou1 8]", text), (
                    f"a wrong article: {text}"
                )


def test_a_trail_tells_every_fact_in_every_reference() -> None:
    for row in make_rows(TRAILS, SIZES, seed=4)["train"]:
        facts = dict(pair.split(": ", 1) for pair in row.input.split(" | "))
        for text in row.references:
            # "a 3-mile walk" tells "3 miles"; sentences may begin with the start
            told = text.replace("-mile ", " miles ").lower()
            missing = [
                value for key, value in facts.items() if key != "dogs" and value.lower() not in told
            ]
            assert not missing, (row.input, text)
            assert ("dog" in told.removeprefix(facts["name"].lower())) == ("dogs" in facts), (
                row.input,
                text,
            )


def test_polite_letters_use_the_names_and_things_of_the_message() -> None:
    for row in make_rows(POLITE, SIZES, seed=4)["train"]:
        name, thing = row.entities
        letter = row.references[0]
        assert letter.startswith(f"Dear {name}, "), row
        assert thing in letter, row
        assert thing in row.input.lower() or thing in row.input, row
        assert letter.count("hank you") == 1, row


def test_the_answer_follows_from_the_message() -> None:
    urgent = [
        row
        for row in make_rows(POLITE, SIZES, seed=4)["train"]
        if row.input.endswith(("Now!", "Quick!"))
    ]
    assert len(urgent) > 20
    assert all(row.references[0].endswith("Thank you for your quick help.") for row in urgent)


def test_labels_are_evenly_there_in_every_part() -> None:
    for rows in make_rows(TRIAGE, Sizes(train=1200, validation=300, test=300), seed=0).values():
        counts = [sum(row.references[0] == label for row in rows) for label in TRIAGE.labels]
        assert min(counts) > len(rows) / len(counts) * 0.6


def test_the_word_alone_does_not_give_the_label_away() -> None:
    """Most messages name two subjects, in either order."""
    rows = make_rows(TRIAGE, Sizes(train=1200, validation=10, test=10), seed=0)["train"]
    named = [
        [word for word in re.findall(r"[a-z]+", row.input.lower()) if word in TRIAGE.labels]
        for row in rows
    ]
    two = [
        (row.references[0], words)
        for row, words in zip(rows, named, strict=True)
        if len(words) == 2
    ]
    assert all(row.references[0] in words for row, words in zip(rows, named, strict=True))
    assert len(two) > 0.75 * len(rows)
    assert 0.1 < sum(label == words[0] for label, words in two) / len(two) < 0.5


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("old mill", "an old mill"),
        ("deep lake", "a deep lake"),
        ("8 km walk", "an 8 km walk"),
        ("18 km walk", "an 18 km walk"),
        ("11 km walk", "an 11 km walk"),
        ("19 km walk", "a 19 km walk"),
        ("one-way path", "a one-way path"),
    ],
)
def test_articles(phrase: str, expected: str) -> None:
    assert article(phrase) == expected


@pytest.fixture(scope="module")
def pretraining_text() -> str:
    """A sample of the made-up text that the embedded base was trained on, in lower case."""
    materials = Materials(
        sentences=(
            "The road was long and dry.",
            "Nobody came that day.",
            "She sold the boat at once.",
        )
    )
    written = documents(Random(0), materials)
    return "\n".join(next(written).text.lower() for _ in range(2000))


@each_task
def test_pretraining_never_saw_the_test_rows(task: DemoTask, pretraining_text: str) -> None:
    for row in make_rows(task, Sizes(train=1, validation=1, test=200), seed=0)["test"]:
        assert row.input.lower() not in pretraining_text, row.input
        assert task.labels or row.references[0].lower() not in pretraining_text, row.references[0]
