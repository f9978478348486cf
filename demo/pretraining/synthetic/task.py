"""A task is a source of examples of one kind; a layout writes one or more of them as a document."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple


class Example(NamedTuple):
    """One input, its output, and the parts of the output that stand in the input too."""

    source: str
    target: str
    copied: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """Examples of one kind, with the words that a document may use for them."""

    draw: Callable[[Random], Example]
    instructions: Sequence[str]
    source_words: Sequence[str] = ("Input", "In", "Text", "Given")
    target_words: Sequence[str] = ("Output", "Out", "Answer", "Result")
    most: int = 8


@dataclass(frozen=True)
class Materials:
    """Real sentences that tasks may copy, quote and sort: all of them, and those of each known
    subject.
    """

    sentences: Sequence[str]
    by_subject: Sequence[tuple[str, Sequence[str]]] = ()


class Document(NamedTuple):
    """A finished text and the examples in it, in order."""

    text: str
    examples: tuple[Example, ...]


def _labelled(rng: Random, task: Task, examples: Sequence[Example]) -> list[str]:
    source, target = rng.choice(task.source_words), rng.choice(task.target_words)
    change = rng.choice((str, str, str, str.upper, str.lower))
    mark = rng.choice((": ", ": ", ": ", " - ", " = ", ":\n", ") "))
    between = rng.choice(("\n", "\n", "\n\n"))
    return [
        f"{change(source)}{mark}{item.source}{between}{change(target)}{mark}{item.target}"
        for item in examples
    ]


def _arrows(rng: Random, task: Task, examples: Sequence[Example]) -> list[str]:
    arrow = rng.choice(
        (
            " -> ",
            " => ",
            "\n-> ",
            "\n=> ",
            " --> ",
            " | ",
            "\t",
            "\n= ",
            " :: ",
            "\n> ",
            " ### ",
            "\n---\n",
        )
    )
    return [f"{item.source}{arrow}{item.target}" for item in examples]


def _plain(rng: Random, task: Task, examples: Sequence[Example]) -> list[str]:
    between = rng.choice(("\n", "\n", "\n\n"))
    return [f"{item.source}{between}{item.target}" for item in examples]


def _quoted(rng: Random, task: Task, examples: Sequence[Example]) -> list[str]:
    target = rng.choice(task.target_words)
    return [f'"{item.source}"\n{target}: "{item.target}"' for item in examples]


def _target_only(rng: Random, task: Task, examples: Sequence[Example]) -> list[str]:
    target, mark = rng.choice(task.target_words), rng.choice((":", ":", " =", ":\n"))
    return [
        f"{item.source}\n{target}{mark}{'' if mark.endswith(chr(10)) else ' '}{item.target}"
        for item in examples
    ]


_LAYOUTS = (_labelled, _labelled, _labelled, _arrows, _plain, _plain, _plain, _quoted, _target_only)


def _with_instruction(rng: Random, task: Task, blocks: list[str]) -> list[str]:
    instruction = rng.choice(task.instructions)
    if rng.random() < 0.2:
        return [f"{instruction}\n{block}" for block in blocks]
    return [instruction + rng.choice(("\n", "\n\n", "\n")) + blocks[0], *blocks[1:]]


def _how_many(rng: Random, task: Task) -> int:
    roll = rng.random()
    if roll < 0.25:
        return 1
    return min(task.most, rng.randint(2, 3) if roll < 0.5 else rng.randint(3, 8))


def write(rng: Random, task: Task, *, most_characters: int | None = None) -> Document:
    """Write a document: one task, one layout, one or more examples, at most about `most_characters`
    long.
    """
    most_characters = most_characters or rng.choice((400, 850, 850, 1300))
    examples: list[Example] = []
    size = 0
    for _ in range(_how_many(rng, task)):
        example = task.draw(rng)
        size += len(example.source) + len(example.target) + 20
        if examples and size > most_characters:
            break
        examples.append(example)
    blocks = rng.choice(_LAYOUTS)(rng, task, examples)
    if task.instructions and rng.random() < 0.6:
        blocks = _with_instruction(rng, task, blocks)
    multiline = any("\n" in block for block in blocks)
    between = (
        "\n\n"
        if multiline and rng.random() < 0.75
        else rng.choice(("\n", "\n\n" if multiline else "\n"))
    )
    return Document(between.join(blocks), tuple(examples))
