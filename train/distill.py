"""A long text prompt pressed into a short prefix: the teacher is the same base with the text in
front of the prompt, both as one text with one begin token.

The teacher's distributions over the next token do not change during training, so they are computed
once, cut to the TOP likeliest tokens, and kept in RUN/teacher.safetensors; a resumed run reads them
from there. The student is trained to give the same distributions: KL divergence over those tokens
and, as one more outcome, all others together.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.errors import TrainingError
from edgeprefix.train.attention import KeyValues
from edgeprefix.train.batches import collate
from edgeprefix.train.data import Example
from edgeprefix.train.model import FrozenModel
from edgeprefix.train.record import RunFolder

TOP = 20  # Cartridges' number (arXiv 2506.06266); what it leaves out is one outcome of its own
_BATCH = 16
_VERSION = 2  # of the way the answers are computed; 1 had a begin token between text and prompt

OnTeacher = Callable[[int, int], None]
"""Told how many examples are done, and of how many."""


class Teacher:
    """What the base says with the long text in front, for given examples."""

    def __init__(self, base: FrozenModel, text: str) -> None:
        ids = base.tokenizer.encode_prompt(text)
        if not base.tokenizer.encode_piece(text):
            raise TrainingError(
                "the teacher text is empty; give the long prompt that the prefix is to stand for"
            )
        if len(ids) >= base.max_positions:
            raise TrainingError(
                f"the teacher text has {len(ids)} tokens, the base has {base.max_positions} "
                "positions; shorten it"
            )
        begin, end = special_tokens_around(base.tokenizer)
        text_ids = ids[: len(ids) - len(end)]
        self.tokens = len(text_ids)
        self._base = base
        self._begin = begin
        # Its last token is read with the prompt: a prompt may be nothing but its begin token.
        self._prefix = base.key_values(text_ids[:-1]) if len(text_ids) > 1 else []
        self._last = (text_ids[-1],)
        self._known: dict[Example, tuple[Tensor, Tensor]] = {}
        self.key = _teacher_key(base, text_ids)

    @torch.no_grad()
    def prepare(
        self, examples: Sequence[Example], run: RunFolder, progress: OnTeacher | None = None
    ) -> None:
        """Has the distributions of all `examples` ready: read from the run where it holds them,
        else computed and written.
        """
        wanted = list(dict.fromkeys(examples))
        key = self.key + _examples_hash(wanted)
        self._read(run.read_teacher(key), wanted)
        missing = sorted(
            (example for example in wanted if example not in self._known),
            key=lambda example: example.length,
        )
        for start in range(0, len(missing), _BATCH):
            self._compute(missing[start : start + _BATCH])
            if progress is not None:
                progress(min(start + _BATCH, len(missing)), len(missing))
        if missing:
            run.write_teacher(self._tensors(wanted), key)

    def targets(self, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """Token ids and log-probabilities [N, TOP] for the examples' target positions, in a batch's
        order.
        """
        known = [self._known[example] for example in examples]
        device = self._base.device
        return torch.cat([ids for ids, _ in known]).long().to(device), torch.cat(
            [logs for _, logs in known]
        ).to(device)

    def _compute(self, examples: Sequence[Example]) -> None:
        batch = collate([self._behind_text(example) for example in examples])
        batch = batch.to(self._base.device)
        logs = self._base.logits(self._prefix, batch.ids, batch.rows, batch.lengths).log_softmax(-1)
        values, ids = logs.topk(min(TOP, logs.shape[-1]), dim=-1)
        counts = [len(example.target) for example in examples]
        for example, some_ids, some_values in zip(
            examples, torch.split(ids, counts), torch.split(values, counts), strict=True
        ):
            self._known[example] = (some_ids.int().cpu().clone(), some_values.cpu().clone())

    def _behind_text(self, example: Example) -> Example:
        """The example as it goes on after the text: without a begin token of its own."""
        count = len(self._begin)
        own = count if example.prompt[:count] == self._begin else 0
        return dataclasses.replace(example, prompt=self._last + example.prompt[own:])

    def _read(self, tensors: Mapping[str, Tensor] | None, wanted: Sequence[Example]) -> None:
        if tensors is None:
            return
        counts = [len(example.target) for example in wanted]
        ids, logs = (torch.split(tensors[name], counts) for name in ("ids", "log_probabilities"))
        self._known |= dict(zip(wanted, zip(ids, logs, strict=True), strict=True))

    def _tensors(self, wanted: Sequence[Example]) -> dict[str, Tensor]:
        return {
            "ids": torch.cat([self._known[example][0] for example in wanted]),
            "log_probabilities": torch.cat([self._known[example][1] for example in wanted]),
        }


def special_tokens_around(tokenizer: TextTokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer puts before and behind a prompt."""
    ids, piece = tokenizer.encode_prompt("a"), tokenizer.encode_piece("a")
    count = len(piece)
    places = (at for at in range(len(ids)) if ids[at : at + count] == piece)
    at = next(places, None)
    return ((), ()) if at is None else (tuple(ids[:at]), tuple(ids[at + count :]))


def _teacher_key(base: FrozenModel, ids: Sequence[int]) -> str:
    """Of all that the answers depend on besides the examples: the numbers of the base, what they
    are multiplied in and by which way, and the text.
    """
    facts = (
        _VERSION,
        base.identity.sha256,
        base.weights,
        base.precision,
        base.route,
        list(ids),
        TOP,
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def divergence(logits: Tensor, ids: Tensor, logs: Tensor) -> Tensor:
    """Mean KL(teacher ‖ student) per position over the teacher's top tokens and the rest as one
    outcome.

    `logits` [N, V] of the student; `ids` and `logs` [N, TOP] of the teacher. Never more than the KL
    over all tokens.
    """
    student = logits.log_softmax(-1).gather(1, ids)
    return (
        _divergence_terms(logs, student) + _divergence_terms(_rest(logs), _rest(student))
    ).mean()


@torch.no_grad()
def teacher_divergence(
    base: FrozenModel, prefix: KeyValues, examples: Sequence[Example], teacher: Teacher
) -> float:
    """Mean KL per target position over many examples."""
    total, count = 0.0, 0
    ordered = sorted(examples, key=lambda example: example.length)
    for start in range(0, len(ordered), _BATCH):
        group = ordered[start : start + _BATCH]
        batch = collate(group).to(base.device)
        logits = base.logits(prefix, batch.ids, batch.rows, batch.lengths)
        total += float(divergence(logits, *teacher.targets(group))) * len(batch.targets)
        count += len(batch.targets)
    return total / count


def _divergence_terms(teacher: Tensor, student: Tensor) -> Tensor:
    return (teacher.exp() * (teacher - student)).sum(-1)


def _rest(logs: Tensor) -> Tensor:
    """Log of the probability that is left beside the given tokens, [N, 1]; at least 1e-6, since
    rounding may make it negative.
    """
    left = 1 - logs.exp().sum(-1, keepdim=True)
    return left.clamp(min=1e-6).log()


def _examples_hash(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr((example.prompt, example.target)).encode())
    return digest.hexdigest()
