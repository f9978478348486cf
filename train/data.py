"""Rows to token ids, and a report on them before any training: lengths, truncation, duplicates,
leakage.

Prompt and target are encoded apart (runtime/contracts/tokenizer.py), as the runtime does it. A pair
that is too long loses the beginning of its prompt, never its target; how many rows that met is in
the report, never silent.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from edgeprefix.cli.rows import Row
from edgeprefix.runtime.contracts.prompt import render_prompt, template_fields
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.errors import DataError
from edgeprefix.train.sources import TARGET, DataSource, read_source, refuse_rows

_SPLIT_SHARE = 0.1
_SPLIT_MOST = 500


@dataclass(frozen=True, kw_only=True)
class Example:
    """One row as ids. Training predicts `target` (it ends with the end-of-text id) after
    `prompt`.
    """

    prompt: tuple[int, ...]
    target: tuple[int, ...]
    text: str
    """The target as text."""

    @property
    def length(self) -> int:
        """Tokens of prompt and target."""
        return len(self.prompt) + len(self.target)


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """Facts about the data that a user should know before training; lengths in tokens."""

    train_rows: int
    validation_rows: int
    validation_from_train: bool
    prompt_tokens: tuple[int, int, int]
    """Median, 95th percentile, longest."""
    target_tokens: tuple[int, int, int]
    truncated_train: int
    truncated_validation: int
    duplicate_rows: int
    """Training rows whose input and target stood there before."""
    leaked_rows: int
    """Validation rows whose rendered prompt is a training prompt too."""
    window: int | None = None
    """Positions that the base sees, when all its layers have a sliding window."""
    beyond_window: int = 0
    """Training rows at whose end the prefix is out of every layer's sight."""

    def warnings(self) -> list[str]:
        """What deserves a look, one sentence each."""
        found = []
        if self.truncated_train or self.truncated_validation:
            found.append(
                f"{self.truncated_train} training and {self.truncated_validation} validation rows "
                "are too long and lose the "
                "beginning of their prompt; raise max_tokens or shorten the prefix"
            )
        if self.leaked_rows:
            found.append(
                f"{self.leaked_rows} of {self.validation_rows} validation prompts also stand in "
                "the training data: "
                "the validation numbers are too good"
            )
        if self.beyond_window:
            found.append(
                f"every layer of this base sees at most {self.window} positions, so that "
                f"{self.beyond_window} training rows end "
                "out of the prefix's sight; take a base without windows, or shorter rows"
            )
        if self.duplicate_rows:
            found.append(
                f"{self.duplicate_rows} training rows are exact duplicates of earlier ones"
            )
        return found


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Encoded rows and the report on them."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    report: DataReport

    def fingerprint(self) -> str:
        """SHA-256 over all ids, so that a resumed run can tell whether the data are the same."""
        digest = hashlib.sha256()
        for examples in (self.train, self.validation):
            for example in examples:
                digest.update(repr((example.prompt, example.target)).encode())
            digest.update(b"|")
        return digest.hexdigest()


def load_data(
    train: DataSource,
    validation: DataSource | None,
    *,
    tokenizer: TextTokenizer,
    prompt: str,
    target: str = TARGET,
    labels: Sequence[str] = (),
    max_tokens: int,
    window: int | None = None,
    seed: int = 0,
) -> TrainingData:
    """Reads, checks and encodes both sets; without `validation` a seeded tenth (at most 500 rows)
    is set apart.

    Raises DataError naming file and line for bad rows, for empty prompts and targets, and for a
    target that is none of `labels`.
    """
    fields = template_fields(prompt)
    train_rows = read_source(train, fields=fields, target=target, what="training row")
    held_out = (
        read_source(validation, fields=fields, target=target, what="validation row")
        if validation is not None
        else []
    )
    if validation is None:
        train_rows, held_out = _split(train_rows, prompt, seed)
    _check_labels(train_rows + held_out, labels)
    texts, held_out_texts = (
        [render_prompt(prompt, row.fields) for row in rows] for rows in (train_rows, held_out)
    )
    encoded, cut = _encode(train_rows, texts, tokenizer, max_tokens)
    held_out_encoded, held_out_cut = _encode(held_out, held_out_texts, tokenizer, max_tokens)
    prompts = set(texts)
    pairs = {(text, row["target"]) for text, row in zip(texts, train_rows, strict=True)}
    report = DataReport(
        train_rows=len(train_rows),
        validation_rows=len(held_out),
        validation_from_train=validation is None,
        prompt_tokens=_spread([len(example.prompt) for example in encoded]),
        target_tokens=_spread([len(example.target) for example in encoded]),
        truncated_train=cut,
        truncated_validation=held_out_cut,
        duplicate_rows=len(train_rows) - len(pairs),
        leaked_rows=sum(text in prompts for text in held_out_texts),
        window=window,
        beyond_window=sum(example.length > window for example in encoded) if window else 0,
    )
    return TrainingData(train=encoded, validation=held_out_encoded, report=report)


def encode_example(tokenizer: TextTokenizer, prompt: str, target: str) -> Example:
    """A rendered prompt and its target as ids."""
    return Example(
        prompt=tuple(tokenizer.encode_prompt(prompt)),
        target=tuple(tokenizer.encode_target(target)),
        text=target,
    )


def _split(rows: list[Row], prompt: str, seed: int) -> tuple[list[Row], list[Row]]:
    """Sets a tenth apart, of the rows and of the prompts at most; rows with the same prompt stay
    on one side, so that the split itself leaks nothing.

    Where every prompt has more rows than that, the one with the fewest is set apart.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(render_prompt(prompt, row.fields), []).append(row)
    if len(groups) < 2:
        raise DataError(
            f"{rows[0].path} has {len(groups)} distinct prompt; give --validation, or more rows "
            "to set some apart"
        )
    keys = list(groups)
    random.Random(seed).shuffle(keys)
    most_rows = max(1, min(_SPLIT_MOST, int(len(rows) * _SPLIT_SHARE)))
    most_groups = max(1, int(len(groups) * _SPLIT_SHARE))
    apart: list[str] = []
    left = most_rows
    for key in reversed(keys):
        if len(groups[key]) <= left and len(apart) < most_groups:
            apart.append(key)
            left -= len(groups[key])
    apart = apart or [min(keys, key=lambda key: len(groups[key]))]
    held_out = [row for key in apart for row in groups.pop(key)]
    kept = {id(row) for group in groups.values() for row in group}
    return [row for row in rows if id(row) in kept], held_out


def _check_labels(rows: Sequence[Row], labels: Sequence[str]) -> None:
    if not labels:
        return
    wrong = [row for row in rows if row["target"] not in labels]
    if wrong:
        row = wrong[0]
        raise DataError(
            f"{row.place}: target {row['target']!r} is none of the labels ({', '.join(labels)}); "
            f"{len(wrong)} such rows; mend them or add the label"
        )


def _encode(
    rows: Sequence[Row], prompts: Sequence[str], tokenizer: TextTokenizer, max_tokens: int
) -> tuple[tuple[Example, ...], int]:
    """Examples, and how many lost the beginning of their prompt."""
    examples, problems, cut = [], [], 0
    for row, prompt in zip(rows, prompts, strict=True):
        example = encode_example(tokenizer, prompt, row["target"])
        problem = _problem(example, row["target"], tokenizer, max_tokens)
        if problem is not None:
            problems.append(f"{row.place}: {problem}")
        elif example.length > max_tokens:
            example, cut = _shortened(example, max_tokens), cut + 1
        examples.append(example)
    refuse_rows(problems)
    return tuple(examples), cut


def _problem(
    example: Example, target: str, tokenizer: TextTokenizer, max_tokens: int
) -> str | None:
    """What keeps a row from being trained on; None when nothing does."""
    if not example.prompt:
        return "the prompt is empty; every row needs one"
    if not tokenizer.encode_piece(target):  # the end token alone is nothing to learn
        return "the target is empty; every row needs one"
    if len(example.target) >= max_tokens:
        return (
            f"the target alone has {len(example.target)} tokens and only {max_tokens} fit; "
            "shorten it"
        )
    return None


def _shortened(example: Example, max_tokens: int) -> Example:
    kept = max_tokens - len(example.target)
    return dataclasses.replace(example, prompt=example.prompt[-kept:])


def _spread(lengths: Sequence[int]) -> tuple[int, int, int]:
    ordered = sorted(lengths)
    return (
        ordered[len(ordered) // 2],
        ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))],
        ordered[-1],
    )
