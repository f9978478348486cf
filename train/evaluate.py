"""How good a prefix is on validation rows: loss per target token, label accuracy, or greedy
generation (BLEU, exact).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeprefix.runtime.errors import MissingExtraError, TrainingError
from edgeprefix.train.attention import KeyValues
from edgeprefix.train.batches import collate, in_length_order
from edgeprefix.train.data import Example
from edgeprefix.train.model import FrozenModel

_BATCH = 32
_GENERATED_TOKENS_MARGIN = 1.5  # generation may run this much longer than the longest target

HIGHER_IS_BETTER = {"loss": False, "kl": False, "accuracy": True, "bleu": True, "exact": True}


@torch.no_grad()
def target_loss(
    base: FrozenModel, prefix: KeyValues, examples: Sequence[Example], *, batch_size: int = _BATCH
) -> float:
    """Mean cross-entropy per target token, in nats; an empty `prefix` measures the base alone."""
    total, count = 0.0, 0
    for group in in_length_order(examples, batch_size):
        batch = collate(group).to(base.device)
        logits = base.logits(prefix, batch.ids, batch.rows, batch.lengths)
        total += float(F.cross_entropy(logits, batch.targets, reduction="sum"))
        count += len(batch.targets)
    return total / count


def label_log_likelihoods(
    base: FrozenModel,
    prefix: KeyValues,
    prompts: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
) -> Tensor:
    """log p(label | prompt), summed over the label's tokens: [prompts, labels], differentiable in
    the prefix.
    """
    options = [
        Example(prompt=tuple(prompt), target=tuple(label), text="")
        for prompt in prompts
        for label in labels
    ]
    batch = collate(options).to(base.device)
    losses = F.cross_entropy(
        base.logits(prefix, batch.ids, batch.rows, batch.lengths), batch.targets, reduction="none"
    )
    scores = torch.zeros(len(options), device=losses.device).index_add(0, batch.owner, -losses)
    return scores.view(len(prompts), len(labels))


@torch.no_grad()
def label_accuracy(
    base: FrozenModel, prefix: KeyValues, examples: Sequence[Example], labels: Sequence[str]
) -> float:
    """Share of rows whose own label has the highest likelihood among all labels."""
    encoded = [base.tokenizer.encode_target(label) for label in labels]
    right = 0
    for example in examples:
        best = int(scores_behind_one_prompt(base, prefix, example.prompt, encoded).argmax())
        right += labels[best] == example.text
    return right / len(examples)


def scores_behind_one_prompt(
    base: FrozenModel, prefix: KeyValues, prompt: Sequence[int], labels: Sequence[Sequence[int]]
) -> Tensor:
    """`label_log_likelihoods` of one prompt, [labels]; it is read once, and stands before all
    labels like a longer prefix.
    """
    *before, last = prompt
    front = base.key_values(before, behind=prefix) if before else prefix
    return label_log_likelihoods(base, front, [[last]], labels)[0]


@torch.no_grad()
def generate(
    base: FrozenModel, prefix: KeyValues, prompts: Sequence[Sequence[int]], *, max_new_tokens: int
) -> list[list[int]]:
    """Greedy continuations without their end token, for prompts of any lengths; a prompt near the
    base's last position gets no more tokens than there are positions.

    Prompts of equal length share a batch: nothing is padded, so that a row's result does not depend
    on its neighbours.
    """
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(index)
    results: list[list[int]] = [[] for _ in prompts]
    for length, indices in by_length.items():
        left = max(1, base.max_positions - _length(prefix) - length)
        for start in range(0, len(indices), _BATCH):
            chunk = indices[start : start + _BATCH]
            outputs = _generate_equal(
                base, prefix, [prompts[index] for index in chunk], min(max_new_tokens, left)
            )
            for index, output in zip(chunk, outputs, strict=True):
                results[index] = output
    return results


def _generate_equal(
    base: FrozenModel, prefix: KeyValues, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> list[list[int]]:
    """Greedy decoding of prompts of one length, with the model's own cache and attention."""
    ends = torch.tensor(base.tokenizer.end_ids, dtype=torch.long, device=base.device)
    tokens = torch.tensor([list(prompt) for prompt in prompts], device=base.device)
    cache = base.filled_cache(prefix, len(prompts))
    position = prefix[0][0].shape[1] if prefix else 0
    written: list[Tensor] = []
    done = torch.zeros(len(prompts), dtype=torch.bool, device=base.device)
    for _ in range(max_new_tokens):
        B, S = tokens.shape
        mask = torch.ones(B, position + S, dtype=torch.long, device=base.device)
        with base.calling():
            logits = base.model(
                input_ids=tokens, attention_mask=mask, past_key_values=cache, use_cache=True
            ).logits
        position += S
        tokens = logits[:, -1:].argmax(dim=-1)
        done = done | torch.isin(tokens[:, 0], ends)
        written.append(tokens[:, 0].masked_fill(done, -1))
        if bool(done.all()):
            break
    columns = torch.stack(written, dim=1).tolist() if written else [[] for _ in prompts]
    return [[token for token in row if token >= 0] for row in columns]


def generation_metric(
    base: FrozenModel, prefix: KeyValues, examples: Sequence[Example], metric: str
) -> float:
    """BLEU (sacrebleu, lower-cased, 13a; rows with the same prompt are each other's references) or
    share of exact matches.
    """
    references: dict[tuple[int, ...], list[str]] = {}
    for example in examples:
        references.setdefault(example.prompt, []).append(example.text)
    longest = max(len(example.target) for example in examples)
    prompts = list(references)
    limit = int(longest * _GENERATED_TOKENS_MARGIN)
    outputs = generate(base, prefix, prompts, max_new_tokens=limit)
    texts = [base.tokenizer.decode(output).strip() for output in outputs]
    if metric == "exact":
        return sum(
            text in [r.strip() for r in references[prompt]]
            for text, prompt in zip(texts, prompts, strict=True)
        ) / len(texts)
    return bleu(texts, [references[prompt] for prompt in prompts])


def bleu(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU 0-100 against any number of references per text. Raises MissingExtraError without
    sacrebleu.
    """
    if importlib.util.find_spec("sacrebleu") is None:
        raise MissingExtraError(
            "the metric bleu needs the package sacrebleu; type: pip install 'edgeprefix[train]'"
        )
    import sacrebleu

    most = max(len(row) for row in references)
    # Rows with fewer references repeat their first one: repeating changes nothing, since n-grams
    # are clipped by the maximum.
    streams = [
        [row[index] if index < len(row) else row[0] for row in references] for index in range(most)
    ]
    return float(sacrebleu.corpus_bleu(list(texts), streams, lowercase=True, tokenize="13a").score)


def measure(
    base: FrozenModel,
    prefix: KeyValues,
    examples: Sequence[Example],
    *,
    metric: str,
    labels: Sequence[str],
) -> float:
    """One validation metric by name."""
    if metric == "loss":
        return target_loss(base, prefix, examples)
    if metric == "accuracy":
        if not labels:
            raise TrainingError("the metric accuracy needs labels; give --labels a,b,c")
        return label_accuracy(base, prefix, examples, labels)
    return generation_metric(base, prefix, examples, metric)


def _length(prefix: KeyValues) -> int:
    return prefix[0][0].shape[1] if prefix else 0
